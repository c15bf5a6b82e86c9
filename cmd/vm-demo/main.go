// Command vm-demo shows what the provider does, on a vCenter of its own: a VM is snapshotted, backed
// up, spoilt, destroyed and restored, and every byte and setting is compared. It uses the programs
// that "make build" made, and a real terraform or tofu. It fails if any comparison fails.
//
//	vm-demo [-bin DIR] [-keep]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// limit is how long everything may take. It takes a tenth of that; a demonstration that hangs has failed.
const limit = 10 * time.Minute

func main() {
	bin := flag.String("bin", "", "directory of terraform-provider-vm and vm-lab (default: that of vm-demo)")
	keep := flag.Bool("keep", false, "keep the directory with images, configuration and repository")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, limit)
	err := run(ctx, os.Stdout, *bin, *keep)
	cancel()
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\nvm-demo: %v\n", err)
		os.Exit(1)
	}
}

// run sets the stage, plays the demo and clears up, whatever happened.
func run(ctx context.Context, out io.Writer, bin string, keep bool) (err error) {
	start := time.Now()
	if bin == "" {
		program, err := os.Executable()
		if err != nil {
			return err
		}
		bin = filepath.Dir(program)
	}
	if bin, err = filepath.Abs(bin); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "vm-demo-")
	if err != nil {
		return err
	}
	d := &demo{printer: newPrinter(out), bin: bin, dir: dir}
	defer func() {
		err = errors.Join(err, d.close())
		if keep {
			fmt.Fprintf(out, "\nkept: %s\n", dir)
		} else {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := d.play(ctx); err != nil {
		if ctx.Err() != nil {
			return fmt.Errorf("stopped (%w); everything is torn down: %w", context.Cause(ctx), err)
		}
		return err
	}
	d.finish(time.Since(start))
	return nil
}

// A demo is one run of the demonstration.
type demo struct {
	*printer
	bin string // built programs
	dir string // everything that the demo makes

	program   string // terraform or tofu
	terraform *terraform
	lab       *lab
	disks     []image // of the VM, as it was backed up
	files     *guestFiles
	before    vmStatus // the VM as it was backed up
	backup    backupOutput
}

// close stops the lab, if it runs.
func (d *demo) close() error {
	if d.lab == nil {
		return nil
	}
	return d.lab.stop()
}
