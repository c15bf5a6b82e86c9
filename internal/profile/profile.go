// Package profile writes profiles of what a program does, for benchmarks.
package profile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"time"
)

// The environment of a process that is to write profiles of itself.
const (
	Directory = "PROFILE_DIRECTORY" // where to write them; empty: nowhere
	Name      = "PROFILE_NAME"      // what they are called
)

// Run does something and writes the profiles that the environment asks for, as To does.
func Run(do func() error) error {
	return To(os.Getenv(Directory), os.Getenv(Name), do)
}

// To does something and writes two profiles to a directory, unless that is empty: NAME-TIME.cpu, of where the
// processors' time goes, and NAME-TIME.allocs, of what is allocated. It returns the error of do, and those of
// writing.
func To(dir, name string, do func() error) (err error) {
	if dir == "" {
		return do()
	}
	// Finer than the default of 512 KiB, or buffers that are made once would hide all else.
	runtime.MemProfileRate = 64 << 10
	base := filepath.Join(dir, fmt.Sprintf("%s-%s", name, time.Now().Format("150405.000")))
	cpu, err := os.Create(base + ".cpu")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cpu.Close()) }()
	if err := pprof.StartCPUProfile(cpu); err != nil {
		return err
	}
	err = do()
	pprof.StopCPUProfile()
	allocs, createErr := os.Create(base + ".allocs")
	if createErr != nil {
		return errors.Join(err, createErr)
	}
	return errors.Join(err, pprof.Lookup("allocs").WriteTo(allocs, 0), allocs.Close())
}
