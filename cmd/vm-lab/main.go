// Command vm-lab runs a vCenter for one machine, and plays the guests of its VMs.
//
//	vm-lab serve -listen 127.0.0.1:8989 [-dir DIR] [-esx] [-tls-cert FILE -tls-key FILE] [-vm NAME=disk0.raw[,disk1.raw…]] …
//	vm-lab write URL VM DISK OFFSET LENGTH  < bytes
//	vm-lab read URL VM DISK OFFSET LENGTH   > bytes
//	vm-lab fault URL METHOD FAULT [-count N] [-after N] [-delay D]
//	vm-lab status URL
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage:
  vm-lab serve [-listen ADDRESS] [-dir DIR] [-esx] [-tls-cert FILE -tls-key FILE] [-vm NAME=disk0.raw[,disk1.raw...]] ...
      prints "ready URL USER PASSWORD FINGERPRINT" and serves until interrupted; without -vm there
      is one VM, web01, with two empty disks
  vm-lab write URL VM DISK OFFSET LENGTH   writes standard input to a disk, as the VM's guest
  vm-lab read URL VM DISK OFFSET LENGTH    prints bytes of a disk, as the VM's guest sees them
  vm-lab fault URL METHOD FAULT [-count N] [-after N] [-delay DURATION]
      makes the next calls of METHOD fail
  vm-lab status URL                        prints what is in the lab, as JSON
`

// errUsage asks for the usage to be printed.
var errUsage = errors.New("wrong usage")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdin, os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Print(usage)
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "vm-lab: %v\n%s", err, usage)
		os.Exit(2)
	case err != nil:
		fmt.Fprintf(os.Stderr, "vm-lab: %v\n", err)
		os.Exit(1)
	}
}

// run executes one command line without the program's name.
func run(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) == 0 {
		return errUsage
	}
	switch command, args := args[0], args[1:]; command {
	case "serve":
		return serve(ctx, args, out)
	case "write":
		return write(ctx, args, in)
	case "read":
		return read(ctx, args, out)
	case "fault":
		return fault(ctx, args)
	case "status":
		return status(ctx, args, out)
	case "help", "-h", "-help", "--help":
		return flag.ErrHelp
	default:
		return fmt.Errorf("%w: unknown command %q", errUsage, command)
	}
}

// newFlags makes an empty set of flags that prints nothing.
func newFlags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.SetOutput(io.Discard)
	return f
}

// parse parses flags that may stand before, between and after n positional arguments.
func parse(f *flag.FlagSet, args []string, n int) ([]string, error) {
	var positional []string
	for {
		if err := f.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return nil, err
			}
			return nil, fmt.Errorf("%w: %s: %w", errUsage, f.Name(), err)
		}
		if f.NArg() == 0 {
			break
		}
		positional, args = append(positional, f.Arg(0)), f.Args()[1:]
	}
	if len(positional) != n {
		return nil, fmt.Errorf("%w: %s takes %d arguments, not %d", errUsage, f.Name(), n, len(positional))
	}
	return positional, nil
}
