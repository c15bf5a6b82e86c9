package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A lab is a running "vm-lab serve".
type lab struct {
	program               string
	serve                 *exec.Cmd
	complaint             *bytes.Buffer
	url, user, password   string
	fingerprint, endpoint string // endpoint is host:port
}

// startLab starts a vCenter with one VM and waits until it serves. It runs until stop: it must outlive
// a cancelled ctx, so that Terraform can clean up.
func startLab(ctx context.Context, bin, dir, vm string, disks []image) (*lab, error) {
	paths := make([]string, len(disks))
	for i, d := range disks {
		paths[i] = d.path
	}
	l := &lab{program: filepath.Join(bin, "vm-lab"), complaint: new(bytes.Buffer)}
	l.serve = command(context.WithoutCancel(ctx), l.program, "serve", "-listen", "127.0.0.1:0", "-dir", dir,
		"-vm", vm+"="+strings.Join(paths, ","))
	l.serve.Stderr = l.complaint
	out, err := l.serve.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := l.serve.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	words := strings.Fields(line)
	if err != nil || len(words) != 5 || words[0] != "ready" {
		return nil, errors.Join(fmt.Errorf("vm-lab did not get ready: %q %s", line, l.complaint), l.stop())
	}
	l.url, l.user, l.password, l.fingerprint = words[1], words[2], words[3], words[4]
	l.endpoint = strings.TrimSuffix(strings.TrimPrefix(l.url, "https://"), "/sdk")
	return l, nil
}

// stop ends the lab and waits for it.
func (l *lab) stop() error {
	if err := l.serve.Process.Signal(os.Interrupt); err != nil && !errors.Is(err, os.ErrProcessDone) {
		_ = l.serve.Process.Kill() // no interrupts on this system
	}
	timer := time.AfterFunc(15*time.Second, func() { _ = l.serve.Process.Kill() })
	defer timer.Stop()
	if err := l.serve.Wait(); err != nil {
		return fmt.Errorf("vm-lab: %w: %s", err, strings.TrimSpace(l.complaint.String()))
	}
	return nil
}

// A labStatus is what "vm-lab status" prints, as far as the demo looks at it.
type labStatus struct {
	VMs      []vmStatus        `json:"vms"`
	Leases   []json.RawMessage `json:"leases"`
	Sessions []json.RawMessage `json:"sessions"`
	Tasks    []struct {
		Name  string `json:"name"`
		State string `json:"state"`
	} `json:"tasks"`
	Files []struct {
		Name string `json:"name"`
	} `json:"files"`
}

type vmStatus struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	BIOSUUID     string `json:"bios_uuid"`
	InstanceUUID string `json:"instance_uuid"`
	PowerState   string `json:"power_state"`
	Snapshots    []struct {
		Name string `json:"name"`
	} `json:"snapshots"`
	Disks []struct {
		UUID     string `json:"uuid"`
		Capacity int64  `json:"capacity"`
	} `json:"disks"`
	NICs []struct {
		MAC string `json:"mac"`
	} `json:"nics"`

	all   any    // everything that the lab says about the VM
	nvram []byte // its firmware's variables
}

// status asks the lab what it holds.
func (l *lab) status(ctx context.Context) (labStatus, error) {
	out, err := output(command(ctx, l.program, "status", l.url))
	if err != nil {
		return labStatus{}, err
	}
	var s labStatus
	var all struct {
		VMs []any `json:"vms"`
	}
	if err := errors.Join(json.Unmarshal(out, &s), json.Unmarshal(out, &all)); err != nil {
		return labStatus{}, err
	}
	for i := range s.VMs {
		s.VMs[i].all = all.VMs[i]
	}
	return s, nil
}

// vm is the VM of a name; an error says that there is none.
func (l *lab) vm(ctx context.Context, name string) (vmStatus, error) {
	s, err := l.status(ctx)
	if err != nil {
		return vmStatus{}, err
	}
	for _, vm := range s.VMs {
		if vm.Name == name {
			return vm, nil
		}
	}
	return vmStatus{}, fmt.Errorf("there is no VM %q", name)
}

// write plays the guest that writes to a disk.
func (l *lab) write(ctx context.Context, vm string, disk int, c change) error {
	cmd := command(ctx, l.program, "write", l.url, vm, strconv.Itoa(disk), strconv.FormatInt(c.offset, 10), strconv.Itoa(len(c.data)))
	cmd.Stdin = bytes.NewReader(c.data)
	_, err := output(cmd)
	return err
}

// read plays the guest that reads a disk from one end to the other, and compares with an image while it
// copies to a file. It returns the bytes that are not zero, in blocks of 64 KiB.
func (l *lab) read(ctx context.Context, vm string, disk int, want image, copyTo string) (int64, error) {
	cmd := command(ctx, l.program, "read", l.url, vm, strconv.Itoa(disk), "0", strconv.FormatInt(want.capacity, 10))
	var complaint strings.Builder
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	image, err := os.Open(want.path)
	if err != nil {
		return 0, err
	}
	defer func() { _ = image.Close() }() // only read
	file, err := os.Create(copyTo)
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, errors.Join(err, file.Close())
	}
	data, err := compareStreams(out, image, file)
	if err != nil {
		_ = cmd.Process.Kill() // what it would still print is of no use
	}
	err = errors.Join(err, file.Truncate(want.capacity), file.Close())
	if wait := cmd.Wait(); wait != nil && err == nil {
		err = fmt.Errorf("vm-lab read: %w: %s", wait, complaint.String())
	}
	return data, err
}

// compareStreams reads two streams to their ends, and fails at the first byte that differs. What is
// not zero goes to a file.
func compareStreams(got, want io.Reader, file io.WriterAt) (data int64, err error) {
	a, b, zeros := make([]byte, 64<<10), make([]byte, 64<<10), make([]byte, 64<<10)
	for offset := int64(0); ; {
		n, errGot := io.ReadFull(got, a)
		m, errWant := io.ReadFull(want, b)
		if n != m || !bytes.Equal(a[:n], b[:m]) {
			at := 0
			for at < min(n, m) && a[at] == b[at] {
				at++
			}
			return data, fmt.Errorf("the disk differs from the image at byte %d", offset+int64(at))
		}
		if !bytes.Equal(a[:n], zeros[:n]) {
			data += int64(n)
			if _, err := file.WriteAt(a[:n], offset); err != nil {
				return data, err
			}
		}
		offset += int64(n)
		ended := errors.Is(errGot, io.EOF) || errors.Is(errGot, io.ErrUnexpectedEOF)
		switch {
		case errGot == nil && errWant == nil:
		case ended:
			return data, nil
		default:
			return data, errors.Join(errGot, errWant)
		}
	}
}
