package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
	"github.com/terraform-vm/terraform-provider-vm/internal/lab/labtest"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/soap"
)

// startServe runs the serve command until the test ends, and returns the words of its line.
func startServe(t *testing.T, args ...string) []string {
	t.Helper()
	reader, writer := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"serve", "-listen", "127.0.0.1:0"}, args...), nil, writer)
		_ = writer.CloseWithError(err)
		ended <- err
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	line, err := bufio.NewReader(reader).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(line)
	if len(words) != 5 || words[0] != "ready" {
		t.Fatalf("serve prints %q", line)
	}
	return words
}

func vmLab(t *testing.T, in string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, strings.NewReader(in), &out)
	return out.String(), err
}

func TestCommands(t *testing.T) {
	t.Parallel()
	disk := labtest.RawDisk(t, 2<<20, 1)
	words := startServe(t, "-vm", "web01="+disk+","+labtest.RawDisk(t, 1<<20, 2), "-vm", "db01="+labtest.RawDisk(t, 1<<20, 3))
	base := words[1]

	// The line has what a client needs.
	u, err := url.Parse(base)
	if err != nil {
		t.Fatal(err)
	}
	if u.Path != "/sdk" || u.User != nil {
		t.Errorf("URL %s", base)
	}
	u.User = url.UserPassword(words[2], words[3])
	soapClient := soap.NewClient(u, false)
	soapClient.SetThumbprint(u.Host, words[4])
	client, err := vim25.NewClient(t.Context(), soapClient)
	if err != nil {
		t.Fatalf("connect with the fingerprint: %v", err)
	}
	if err := session.NewManager(client).Login(t.Context(), u.User); err != nil {
		t.Errorf("log in: %v", err)
	}

	raw, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := vmLab(t, "", "read", base, "web01", "0", "0", "2097152"); err != nil || got != string(raw) {
		t.Errorf("read: %d bytes, %v", len(got), err)
	}
	if _, err := vmLab(t, "hello, and more", "write", base, "web01", "1", "0x1000", "5"); err != nil {
		t.Errorf("write: %v", err)
	}
	if got, err := vmLab(t, "", "read", base, "web01", "1", "4096", "5"); err != nil || got != "hello" {
		t.Errorf("read: %q, %v", got, err)
	}
	out, err := vmLab(t, "", "status", base)
	if err != nil {
		t.Fatal(err)
	}
	var s lab.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatal(err)
	}
	if len(s.VMs) != 2 || s.VMs[1].Name != "web01" || len(s.VMs[1].Disks) != 2 || s.VMs[1].PowerState != "poweredOn" {
		t.Errorf("status: %+v", s.VMs)
	}
	for _, field := range []string{"bios_uuid", "instance_uuid", "power_state", "snapshots", "disks", "leases", "sessions", "tasks"} {
		if !strings.Contains(out, `"`+field+`"`) {
			t.Errorf("status has no %s", field)
		}
	}
}

func TestFault(t *testing.T) {
	t.Parallel()
	l, err := lab.Start(t.Context(), lab.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if _, err := vmLab(t, "", "fault", "-count", "2", l.URL().String(), "GET /nfc", "-delay", "3s", "drop", "-after=1"); err != nil {
		t.Fatal(err)
	}
	want := lab.Fault{Method: "GET /nfc", Fault: "drop", Count: 2, After: 1, Delay: 3 * time.Second}
	if got := l.UnhitFaults(); len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	l := labtest.Start(t, lab.Options{VMs: []lab.VMSpec{{Name: "web01", Disks: []string{labtest.RawDisk(t, 1<<20, 2)}}}})
	base := l.URL().String()
	for _, args := range [][]string{
		{},
		{"fly"},
		{"serve", "extra"},
		{"serve", "-vm", "=x.raw"},
		{"serve", "-nonsense"},
		{"read", base, "web01", "0", "0"},
		{"read", base, "web01", "0", "0", "x"},
		{"read", base, "web01", "first", "0", "1"},
		{"read", base, "web01", "0", "-1", "1"},
		{"fault", base, "GET /nfc"},
		{"fault", base, "GET /nfc", "drop", "-count", "x"},
		{"status"},
	} {
		if _, err := vmLab(t, "", args...); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v, want wrong usage", args, err)
		}
	}
	for _, args := range [][]string{
		{"read", base, "none", "0", "0", "1"},
		{"read", base, "web01", "1", "0", "1"},
		{"read", base, "web01", "0", "1048576", "1"},
		{"write", base, "web01", "0", "0", "10"}, // from an empty standard input
		{"status", "https://127.0.0.1:1/sdk"},
		{"serve", "-listen", "127.0.0.1:0", "-vm", "x=" + filepath.Join(t.TempDir(), "none.raw")},
	} {
		if _, err := vmLab(t, "", args...); err == nil || errors.Is(err, errUsage) {
			t.Errorf("%q: %v", args, err)
		}
	}
	if _, err := vmLab(t, "", "-h"); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-h: %v", err)
	}
	if _, err := vmLab(t, "", "serve", "-h"); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("serve -h: %v", err)
	}
}

func TestServe_withoutVMsHasASample(t *testing.T) {
	t.Parallel()
	words := startServe(t)
	if got, err := vmLab(t, "", "read", words[1], "web01", "1", "0", "3"); err != nil || got != "\x00\x00\x00" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestParse_flagsStandAnywhere(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-n", "1", "a", "b"}, {"a", "-n", "1", "b"}, {"a", "b", "-n", "1"}, {"a", "-n=1", "b"},
	} {
		f := newFlags("x")
		n := f.Int("n", 0, "")
		got, err := parse(f, args, 2)
		if err != nil || *n != 1 || !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("%q: %q, %d, %v", args, got, *n, err)
		}
	}
}
