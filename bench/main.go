// Command bench measures what the provider costs, beside other programs that do a part of its work: govc,
// the stock kopia command, restic, borg, qemu-img and cp. Everybody works in turn, on the same files of
// this machine in an ext4 file system. The vCenter is the lab, in this process; the provider and govc run in processes of
// their own, whose time and memory are measured by the system.
//
//	cd bench && go run . -bin ../bin [-only storage,transfer,scale,points,refresh,begin] [-rounds N] [-data BYTES] [-json FILE] [-profile DIR]
//
// With -profile, everything of ours writes profiles: NAME-TIME.cpu and NAME-TIME.allocs, for go tool pprof. The
// provider is then one that is built for this, and the times that are printed include what profiling costs.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/terraform-vm/terraform-provider-vm/internal/profile"
	"github.com/vmware/govmomi/cli"
	_ "github.com/vmware/govmomi/cli/export"
	_ "github.com/vmware/govmomi/cli/importx"
	_ "github.com/vmware/govmomi/cli/vm"
)

// asGovc makes this program be govc.
const asGovc = "BENCH_AS_GOVC"

func main() {
	if program := os.Getenv(runProgram); program != "" {
		os.Exit(book(program))
	}
	if os.Getenv(asGovc) != "" {
		os.Exit(cli.Run(os.Args[1:]))
	}
	main := run
	for variable, role := range roles {
		if os.Getenv(variable) != "" {
			main = func(ctx context.Context) error {
				return profile.Run(func() error { return role(ctx, os.Args[1:]) })
			}
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := main(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// measurements are the benchmarks by name, in the order in which they run.
var measurements = []struct {
	name string
	run  func(context.Context, *bench) error
}{
	{"storage", storage},
	{"transfer", transfer},
	{"scale", scale},
	{"points", points},
	{"refresh", refresh},
	{"begin", begin},
}

func run(ctx context.Context) (err error) {
	bin := flag.String("bin", "../bin", "directory of terraform-provider-vm")
	only := flag.String("only", "", "benchmarks to run, separated by commas (default: all)")
	file := flag.String("json", "../build/bench.json", "file to write the figures to")
	data := flag.Int64("data", 4<<30, "bytes of files on the disks")
	rounds := flag.Int("rounds", 3, "how often everybody does everything")
	profiles := flag.String("profile", "", "directory to write profiles to (default: none)")
	flag.Parse()
	provider, err := filepath.Abs(filepath.Join(*bin, providerName))
	if err != nil {
		return err
	}
	if _, err := os.Stat(provider); err != nil {
		return fmt.Errorf("%w (make build makes it)", err)
	}
	dir, err := os.MkdirTemp("", "vm-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	b := &bench{dir: dir, provider: provider, data: *data, rounds: *rounds}
	if *profiles != "" {
		if err := b.writeProfiles(ctx, *profiles); err != nil {
			return err
		}
	}
	for _, m := range measurements {
		if *only != "" && !slices.Contains(strings.Split(*only, ","), m.name) {
			continue
		}
		// What this process itself does is the lab's work, for the most part.
		if err := profile.To(b.profiles, "lab-"+m.name, func() error { return m.run(ctx, b) }); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	b.report.print(os.Stdout)
	if err := b.report.write(*file); err != nil {
		return err
	}
	fmt.Printf("\nwritten to %s\n", *file)
	return nil
}

// A bench is one run.
type bench struct {
	dir      string
	provider string // the program
	data     int64
	rounds   int
	profiles string // directory for profiles; empty: none are wanted
	report   report
}

// writeProfiles has all processes of ours write profiles, and the provider be one that can.
func (b *bench) writeProfiles(ctx context.Context, dir string) (err error) {
	if b.profiles, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(b.profiles, 0o755); err != nil {
		return err
	}
	b.provider = filepath.Join(b.dir, providerName)
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", b.provider, "./internal/cmd/profiled")
	cmd.Dir = ".."
	_, err = output(cmd)
	return err
}

// profiling is the environment that makes a process of ours write profiles of that name.
func (b *bench) profiling(name string) []string {
	return []string{profile.Directory + "=" + b.profiles, profile.Name + "=" + name}
}

// capacity is that of the disks, in bytes: two fifths of it is files.
func (b *bench) capacity() int64 { return b.data / 2 * 5 &^ (1<<20 - 1) }

// sub makes a directory for one benchmark, which the returned function removes.
func (b *bench) sub(name string) (dir string, remove func() error, err error) {
	dir = filepath.Join(b.dir, name)
	return dir, func() error { return os.RemoveAll(dir) }, os.Mkdir(dir, 0o700)
}
