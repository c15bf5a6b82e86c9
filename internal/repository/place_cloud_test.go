package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/terraform-vm/terraform-provider-vm/internal/disk"
	"github.com/terraform-vm/terraform-provider-vm/internal/repository/storagetest"
	"github.com/terraform-vm/terraform-provider-vm/internal/secret"
)

// TestAzure logs in with what there is, and is refused with anything else.
func TestAzure(t *testing.T) {
	t.Parallel()
	connect := startAzure(t)
	const wrong = "d3JvbmctMTIz"
	for name, test := range map[string]struct {
		change func(p *Azure)
		want   error
	}{
		"key":             {func(*Azure) {}, nil},
		"signature":       {func(p *Azure) { p.Key, p.SASToken = secret.String{}, secret.New("?"+storagetest.AzureSAS) }, nil},
		"wrong key":       {func(p *Azure) { p.Key = secret.New(wrong) }, ErrRefused},
		"wrong signature": {func(p *Azure) { p.SASToken = secret.New("sv=2022-11-02&sig=" + wrong) }, ErrRefused},
		"no container":    {func(p *Azure) { p.Container = "nobodys" }, ErrNoRepository},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, _ := connect(t, strings.ReplaceAll(name, " ", "-"))
			place, ok := c.Place.(*Azure)
			if !ok {
				t.Fatalf("it is a %T", c.Place)
			}
			test.change(place)
			r, err := Open(t.Context(), c)
			if !errors.Is(err, test.want) {
				t.Fatalf("error %v, want %v", err, test.want)
			}
			if err != nil {
				if text := err.Error(); strings.Contains(text, wrong) || strings.Contains(text, storagetest.AzureKey) || strings.Contains(text, "sig=") {
					t.Errorf("the error gives a secret away: %v", err)
				}
				return
			}
			defer r.Close(t.Context()) //nolint:errcheck // of a test
			id := backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
			if b := readDisk(t, r, id, firstDisk(t, r, id)); !bytes.Equal(b, testSource(1).bytes()) {
				t.Error("the disk differs")
			}
		})
	}
}

// TestAzureLock has the service lock what is written, and what was there before with maintenance.
func TestAzureLock(t *testing.T) {
	t.Parallel()
	server := storagetest.NewAzure(t)
	c, _ := onAzure(server)(t, "locked")
	place, ok := c.Place.(*Azure)
	if !ok {
		t.Fatalf("it is a %T", c.Place)
	}
	backUp(t, open(t, c), testManifest(), map[string]disk.Source{"disk.raw": testSource(1)})
	place.Lock = &ObjectLock{Mode: LockCompliance, Period: 72 * time.Hour}
	r := open(t, c)
	backUp(t, r, testManifest(), map[string]disk.Source{"disk.raw": testSource(2)})
	count := func() (locked, unlocked int) {
		for _, name := range server.Names() {
			if !strings.HasPrefix(name, "locked/p") {
				continue
			}
			switch until := time.Until(server.Locked(name)); {
			case until < 0:
				unlocked++
			case until < 71*time.Hour || until > 73*time.Hour:
				t.Errorf("%s is locked for %s", name, until)
			default:
				locked++
			}
		}
		return locked, unlocked
	}
	if locked, unlocked := count(); locked == 0 || unlocked == 0 {
		t.Errorf("%d packs are locked, and %d are not", locked, unlocked)
	}
	if m, err := r.Maintain(t.Context(), MaintainOptions{Now: true}); err != nil || !m.Ran {
		t.Fatalf("maintenance: %+v, %v", m, err)
	}
	// The service refuses it, which is no damage.
	server.RefuseLocks(true)
	if _, err := r.Maintain(t.Context(), MaintainOptions{Now: true}); !errors.Is(err, ErrRefused) || errors.Is(err, ErrDamaged) {
		t.Errorf("maintenance that may lock nothing: %v", err)
	}
	server.RefuseLocks(false)
	if m, err := r.Maintain(t.Context(), MaintainOptions{Now: true}); err != nil || !m.Ran {
		t.Errorf("maintenance: %+v, %v", m, err)
	}
	if locked, unlocked := count(); locked == 0 || unlocked != 0 {
		t.Errorf("after maintenance, %d packs are locked, and %d are not", locked, unlocked)
	}
}

func init() { children["b2"] = useB2 }

// useB2 does in a process that takes a server for Backblaze's what TestPlace does.
func useB2(ctx context.Context, _ string) error {
	place := func() *B2 {
		return &B2{Bucket: storagetest.B2Bucket, Prefix: "backups/", KeyID: storagetest.B2KeyID, Key: secret.New(storagetest.B2Key)}
	}
	c := placeConfig(place())
	c.Create = false
	if _, err := Open(ctx, c); !errors.Is(err, ErrNotMade) {
		return fmt.Errorf("nothing is there: %w", err)
	}
	wrong, below := place(), place()
	wrong.Key, below.Prefix = secret.New("wrong"), "backups/qa/"
	if _, err := Open(ctx, placeConfig(wrong)); !errors.Is(err, ErrRefused) {
		return fmt.Errorf("with a wrong key: %w", err)
	}
	c.Create = true
	for range 2 {
		r, err := Open(ctx, c)
		if err == nil {
			err = backUpOnceTo(ctx, r)
		}
		if err != nil {
			return err
		}
	}
	if _, err := Open(ctx, placeConfig(below)); !errors.Is(err, ErrNoRepository) || errors.Is(err, ErrNotMade) {
		return fmt.Errorf("below another repository: %w", err)
	}
	return useOpenB2(ctx, c)
}

// useOpenB2 reads what was backed up twice, deletes one of them, and maintains the repository.
func useOpenB2(ctx context.Context, c Config) error {
	r, err := Open(ctx, c)
	if err != nil {
		return err
	}
	points, err := r.List(ctx, Filter{})
	if err != nil || len(points) != 2 {
		return fmt.Errorf("listed %v: %w", points, err)
	}
	if err := r.Delete(ctx, points[0].ID); err != nil {
		return err
	}
	if m, err := r.Maintain(ctx, MaintainOptions{Now: true}); err != nil || !m.Ran {
		return fmt.Errorf("maintenance %+v: %w", m, err)
	}
	m, err := r.Get(ctx, points[1].ID)
	if err != nil {
		return err
	}
	for _, d := range m.Disks {
		reader, err := r.OpenDisk(ctx, points[1].ID, d)
		if err != nil {
			return err
		}
		var b bytes.Buffer
		err = reader.Extents(ctx, func(offset int64, data []byte) error {
			b.Write(make([]byte, offset-int64(b.Len())))
			b.Write(data)
			return nil
		})
		b.Write(make([]byte, max(0, d.Capacity-int64(b.Len()))))
		if want := testSource(1).bytes(); d.File == "same.raw" && (err != nil || !bytes.Equal(b.Bytes(), want)) {
			return fmt.Errorf("%s differs: %w", d.File, errors.Join(err, io.ErrUnexpectedEOF))
		}
	}
	if own, err := blob.ListAllBlobs(ctx, r.remote, ownBlobPrefix); err != nil || len(own) > 0 {
		return fmt.Errorf("what was deleted is there: %v, %w", own, err)
	}
	return r.Close(ctx)
}

// TestB2 keeps a repository on a server that speaks Backblaze's protocol.
func TestB2(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the server's certificate is trusted by way of SSL_CERT_FILE")
	}
	cmd := child(t, "b2", "")
	cmd.Env = append(cmd.Env, storagetest.NewB2(t).Env()...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

func init() {
	children["role"] = useRole
	children["no HTTP/2"] = useNoHTTP2
}

// useRole backs up to S3 with the keys of a role.
func useRole(ctx context.Context, url string) error {
	place := s3PlaceAt(url, "role")
	place.AccessKeyID, place.SecretAccessKey, place.InstanceRole = "", secret.String{}, true
	r, err := Open(ctx, placeConfig(place))
	if err != nil {
		return err
	}
	return backUpOnceTo(ctx, r)
}

// TestS3_role takes keys from where a container has them, and says so where there are none.
func TestS3_role(t *testing.T) {
	t.Parallel()
	network := storagetest.NewS3(t, false).Network(t)
	role := func(status int, answer string) string {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, answer) // the client went
		}))
		t.Cleanup(server.Close)
		return server.URL
	}
	for want, at := range map[string]string{
		"": role(http.StatusOK, fmt.Sprintf(`{"Code":"Success","AccessKeyId":%q,"SecretAccessKey":%q,"Expiration":%q}`,
			storagetest.S3AccessKey, storagetest.S3SecretKey, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))),
		"the role of the machine gives no keys": role(http.StatusNotFound, ""),
	} {
		cmd := child(t, "role", network.URL())
		cmd.Env = append(cmd.Env, "AWS_CONTAINER_CREDENTIALS_FULL_URI="+at, "AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=")
		out, err := cmd.CombinedOutput()
		if (err != nil) != (want != "") || !strings.Contains(string(out), want) {
			t.Errorf("it says %v: %s, want %q", err, out, want)
		}
	}
}

// useNoHTTP2 reaches S3 with certificates of its own.
func useNoHTTP2(ctx context.Context, url string) error {
	place := s3PlaceAt(url, "ca")
	place.CA = []byte("pem")
	_, err := Open(ctx, placeConfig(place))
	return err
}

// TestS3_noHTTP2 refuses what Kopia's client would crash at.
func TestS3_noHTTP2(t *testing.T) {
	t.Parallel()
	cmd := child(t, "no HTTP/2", "http://127.0.0.1:1")
	cmd.Env = append(cmd.Env, "GODEBUG=http2client=0")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "GODEBUG") || strings.Contains(string(out), "panic") {
		t.Errorf("it says %v: %s", err, out)
	}
}
