package provider

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository/storagetest"
)

// newS3World is a world whose repository is on a real S3 server.
func newS3World(t *testing.T, more ...lab.VMSpec) (*world, *storagetest.Proxy) {
	t.Helper()
	w := newWorld(t, more...)
	network := storagetest.NewS3(t, false).Network(t)
	for name, value := range map[string]string{
		envRepositoryPath: "", "AWS_ACCESS_KEY_ID": storagetest.S3AccessKey, "AWS_SECRET_ACCESS_KEY": storagetest.S3SecretKey,
		"AWS_REGION": storagetest.S3Region, "AWS_ENDPOINT_URL_S3": network.URL(), "XDG_CACHE_HOME": t.TempDir(),
	} {
		w.setenv(name, value)
	}
	return w, network
}

// in is a provider block with a repository in a place, which is written as in a configuration.
func (w *world) in(place string) string {
	return fmt.Sprintf("provider \"vm\" {\n  vsphere = {\n    thumbprint = %q\n  }\n  repository = {\n%s\n  }\n}\n", w.lab.Fingerprint(), place)
}

const inS3 = `    s3 = {
      bucket = "backups"
      prefix = "vm/"
    }`

const restoreCopy = `
resource "vm_restore" "copy" {
  backup_id = vm_backup.big.id
  new_vm = {
    name     = "big-copy"
    identity = "copy"
  }
}
`

const bigBackup = `
resource "vm_backup" "big" {
  vm = "big01"
}
`

// TestS3 backs up to a real S3 server and restores from it, while the network fails for a while and for too long.
func TestS3(t *testing.T) {
	t.Parallel()
	big := labtest.RawDisk(t, 64<<20, 3)
	w, network := newS3World(t, lab.VMSpec{Name: "big01", Disks: []string{big}})
	fill := make([]byte, 48<<20)                   // several packs
	_, _ = rand.NewChaCha8([32]byte{1}).Read(fill) // never fails
	if err := w.lab.WriteDisk("big01", 0, 1<<20, fill); err != nil {
		t.Fatal(err)
	}
	s := w.workspace()

	s.write(w.in(inS3+"\n    max_outage = \"1s\"") + bigBackup)
	network.CutAfter(24 << 20)
	out, err := s.run("apply", "-auto-approve")
	said := strings.Join(strings.Fields(strings.ReplaceAll(out, "│", "")), " ") // without the line breaks of the CLI
	if err == nil || !strings.Contains(said, "the repository's storage can't be reached") || !strings.Contains(said, "There is no backup") {
		t.Errorf("an outage that doesn't end: %v\n%s", err, out)
	}
	if strings.Contains(out, storagetest.S3SecretKey) || strings.Contains(out, repositoryPassword) {
		t.Error("the output holds a secret")
	}
	network.Heal()

	s.write(w.in(inS3) + bigBackup)
	network.CutAfter(8 << 20)
	healed := make(chan struct{})
	go func() {
		defer close(healed)
		network.AwaitRefusal(t.Context(), 3)
		network.Heal()
	}()
	out = s.must("apply", "-auto-approve")
	<-healed
	if !strings.Contains(out, "1 added") {
		t.Errorf("an outage that ends:\n%s", out)
	}

	s.write(w.in(inS3) + bigBackup + restoreCopy)
	s.must("apply", "-auto-approve")
	if !bytes.Equal(w.content("big-copy", 0), w.content("big01", 0)) {
		t.Error("the restored disk differs")
	}
	if out := s.must("plan", "-detailed-exitcode"); !strings.Contains(out, "No changes") {
		t.Errorf("the second plan isn't empty:\n%s", out)
	}
	s.must("destroy", "-auto-approve")
}
