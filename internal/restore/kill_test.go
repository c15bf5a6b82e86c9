package restore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository"
	"github.com/terraform-vm/terraform-provider-vm/internal/restore"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
	"github.com/terraform-vm/terraform-provider-vm/internal/vsphere"
)

// childVariable makes this test binary carry out a childRequest, in JSON, and do nothing else.
const childVariable = "TEST_RESTORE_CHILD"

// A childRequest is a restore.Request or a rehearsal.
type childRequest struct {
	restore.Request
	Rehearse *restore.RehearseRequest
}

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) == "" {
		code := m.Run()
		if err := closeShared(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
		os.Exit(code)
	}
	if err := restoreAsChild(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func restoreAsChild(ctx context.Context) error {
	log := slog.New(slog.DiscardHandler)
	client, err := vsphere.Connect(ctx, vsphere.Config{
		Server: os.Getenv("TEST_SERVER"), User: os.Getenv("TEST_USER"),
		Password: secret.New(os.Getenv("TEST_PASSWORD")), Thumbprint: os.Getenv("TEST_THUMBPRINT"),
	}, log)
	if err != nil {
		return err
	}
	repo, err := repository.Open(ctx, repository.Config{
		Path: os.Getenv("TEST_REPOSITORY"), Password: secret.New(repositoryPassword),
	})
	if err != nil {
		return err
	}
	var request childRequest
	if err := json.Unmarshal([]byte(os.Getenv(childVariable)), &request); err != nil {
		return err
	}
	if m := restore.New(client, repo, log, time.Now); request.Rehearse != nil {
		_, err = m.Rehearse(ctx, *request.Rehearse)
	} else {
		_, err = m.Restore(ctx, request.Request)
	}
	return errors.Join(err, repo.Close(ctx), client.Close(ctx))
}

// child is another process that restores. What it says at its end is to be read when it has ended.
func (s *site) child(t *testing.T, request []byte) (*exec.Cmd, *strings.Builder) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childVariable+"="+string(request), "TEST_REPOSITORY="+s.dir,
		"TEST_SERVER="+s.lab.URL().Host, "TEST_USER="+s.lab.User(), "TEST_PASSWORD="+s.lab.Password(),
		"TEST_THUMBPRINT="+s.lab.Fingerprint())
	var stderr strings.Builder
	cmd.Stderr = &stderr
	return cmd, &stderr
}

// killInUpload restores in another process, and kills it as soon as it uploads a disk.
func (s *site) killInUpload(t *testing.T, id repository.ID) {
	t.Helper()
	cmd, stderr := s.child(t, []byte(fmt.Sprintf(`{"BackupID":%q}`, id)))
	uploads, killed := make(chan struct{}, 1), make(chan struct{})
	s.lab.OnCall("POST /nfc", func(context.Context) {
		select {
		case uploads <- struct{}{}:
		default:
		}
		<-killed
	})
	defer func() {
		close(killed)
		s.lab.OnCall("POST /nfc", nil)
	}()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-uploads:
	case err := <-ended:
		t.Fatalf("the restore ended before it uploaded anything: %v: %s", err, stderr.String())
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-ended
}

// kill -9 in the middle of a restore with the original identity: the half VM has that identity, the
// server holds it until its lease expires, and nobody cleans up. Neither the plan nor the restore that
// come next may be refused because of it.
func TestKilledRestore(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id := s.take(t)
	s.lose(t)
	s.killInUpload(t, id)
	half := func(vm lab.VMStatus) bool {
		return strings.HasPrefix(vm.Name, "tf-restore-") && vm.InstanceUUID == s.vm.InstanceUUID
	}
	if vms := s.lab.Status().VMs; !slices.ContainsFunc(vms, half) {
		t.Fatalf("no half VM: %+v", vms)
	}
	warnings, err := s.m.Check(t.Context(), restore.Request{BackupID: id})
	if err != nil {
		t.Errorf("check: %v", err)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "tf-restore-") {
		t.Errorf("check: warnings %q don't name the half VM", warnings)
	}
	labtest.ExpireWhenRefused(s.lab)
	s.restoreAll(t, id, "tf-restore-")
}

// kill -9 while the restored disks are read back: the VM is complete but for its name, and has a snapshot.
func TestKilledVerification(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	id := s.take(t)
	s.lose(t)
	s.killAt(t, moment{"RemoveSnapshot_Task", 1}, restore.Request{BackupID: id, Verify: true})
	vms := s.lab.Status().VMs
	if len(vms) != 1 || !strings.HasPrefix(vms[0].Name, "tf-restore-") || len(vms[0].Snapshots) != 1 {
		t.Fatalf("%+v", vms)
	}
	s.restoreAll(t, id, "tf-restore-")
}
