package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// A printer tells a person what happens, in numbered steps.
type printer struct {
	out  io.Writer
	step int
	bold func(string) string
}

func newPrinter(out io.Writer) *printer {
	p := &printer{out: out, bold: func(s string) string { return s }}
	if f, ok := out.(*os.File); ok && os.Getenv("NO_COLOR") == "" {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			p.bold = func(s string) string { return "\x1b[1m" + s + "\x1b[0m" }
		}
	}
	return p
}

// do runs one step between its title and the time it took.
func (p *printer) do(title string, step func() error) error {
	p.step++
	fmt.Fprintf(p.out, "\n%s\n", p.bold(fmt.Sprintf("%2d  %s", p.step, title)))
	start := time.Now()
	if err := step(); err != nil {
		return fmt.Errorf("step %d, %s: %w", p.step, strings.ToLower(title[:1])+title[1:], err)
	}
	p.line("time", "%s", seconds(time.Since(start)))
	return nil
}

// line prints a fact.
func (p *printer) line(what, format string, args ...any) {
	fmt.Fprintf(p.out, "    %-22s %s\n", what, fmt.Sprintf(format, args...))
}

// finish says that all is well.
func (p *printer) finish(total time.Duration) {
	fmt.Fprintf(p.out, "\n%s\n", p.bold(fmt.Sprintf("All comparisons agree. %s in all.", seconds(total))))
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// size writes bytes the way people read them.
func size(n int64) string {
	const units = "KMGTP"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}
