package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab"
)

// sampleDisk is the size of each disk of the VM that a lab has when none is asked for, in bytes.
const sampleDisk = 64 << 20

// serve runs a lab until ctx ends.
func serve(ctx context.Context, args []string, out io.Writer) (err error) {
	f := newFlags("serve")
	var o lab.Options
	f.StringVar(&o.Listen, "listen", "127.0.0.1:8989", "")
	f.StringVar(&o.Dir, "dir", "", "")
	f.BoolVar(&o.ESX, "esx", false, "")
	f.StringVar(&o.TLSCert, "tls-cert", "", "")
	f.StringVar(&o.TLSKey, "tls-key", "", "")
	f.Func("vm", "", func(s string) error {
		vm, err := parseVM(s)
		o.VMs = append(o.VMs, vm)
		return err
	})
	if _, err := parse(f, args, 0); err != nil {
		return err
	}
	if len(o.VMs) == 0 {
		dir, vm, err := sampleVM()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
		o.VMs = []lab.VMSpec{vm}
	}
	l, err := lab.Start(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	l.SetGuestBoot("*", lab.GuestComesUp) // also that of a VM that is restored
	if _, err := fmt.Fprintf(out, "ready %s %s %s %s\n", l.URL(), l.User(), l.Password(), l.Fingerprint()); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// parseVM parses NAME=disk0.raw,disk1.raw. A VM may have no disks at all.
func parseVM(s string) (lab.VMSpec, error) {
	name, disks, _ := strings.Cut(s, "=")
	if name == "" {
		return lab.VMSpec{}, errors.New("a VM needs a name: NAME=disk0.raw[,disk1.raw...]")
	}
	vm := lab.VMSpec{Name: name}
	for _, d := range strings.Split(disks, ",") {
		if d != "" {
			vm.Disks = append(vm.Disks, d)
		}
	}
	return vm, nil
}

// sampleVM makes a VM with two empty disks. The caller removes the directory that they are in.
func sampleVM() (dir string, vm lab.VMSpec, err error) {
	if dir, err = os.MkdirTemp("", "vm-lab-disks-"); err != nil {
		return "", vm, err
	}
	vm.Name = "web01"
	for _, name := range []string{"web01.raw", "web01-data.raw"} {
		name = filepath.Join(dir, name)
		if err = os.WriteFile(name, nil, 0o600); err == nil {
			err = os.Truncate(name, sampleDisk)
		}
		if err != nil {
			return "", vm, errors.Join(err, os.RemoveAll(dir))
		}
		vm.Disks = append(vm.Disks, name)
	}
	return dir, vm, nil
}
