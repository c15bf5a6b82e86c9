package repository

import (
	"fmt"
	"sync"

	"github.com/kopia/kopia/repo/compression"
)

// validate refuses what is none of the ways to compress.
func (c Compression) validate() error {
	switch c {
	case "", CompressionAuto, CompressionZstd, CompressionS2, CompressionNone:
		return nil
	}
	return fmt.Errorf("unknown compression %q", string(c))
}

const (
	// pressureSteps is how many chunks must find that processors are short, or that they are not, until another
	// compression is taken: a burst of the source is over before.
	pressureSteps = 4

	// Processors are short when less than this share of their time is idle, and have time left when more than that is.
	shortIdle, amplyIdle = 1. / 8, 1. / 4

	// It is the storage that is short when, over some chunks, at least this share of the writes that may be under way
	// are. A write now and then says nothing: a worker that has filled a pack waits for its disk.
	shortWrites = 3. / 4
	// writesSmoothing is how many chunks that is about.
	writesSmoothing = 8
)

// A compressionChoice says how the chunks of a disk are compressed. What is chosen by itself follows from what the
// backup waits for. While chunks pile up in front of the workers, or nobody's processor is idle, processors are short:
// the compression that takes the least time is best, for others on the machine too. While workers wait for
// chunks or for the storage and processors are idle, it is the source or the storage that gives or takes no more, and
// time is left for the compression that stores less. It may be another for each chunk: Kopia keeps with each
// how it is compressed, and finds one again by its plain content.
type compressionChoice struct {
	fixed compression.Name // empty: none
	auto  bool
	busy  int // as many chunks wait for workers that can't keep up
	most  int // as many writes may be under way while a worker takes a chunk
	idle  func() float64

	mu       sync.Mutex
	pressure int     // 0: processors have time left, up to pressureSteps: they are short
	writes   float64 // under way, smoothed; negative: none were counted yet
	fast     bool
}

// newCompressionChoice makes one for a disk. uploads is how many packs may be on their way beside what workers do.
func newCompressionChoice(c Compression, uploads int, idle func() float64) *compressionChoice {
	// Of the window, the workers have one each; half of the others wait.
	choice := &compressionChoice{busy: (window() - workers()) / 2, most: workers() - 1 + uploads, idle: idle, writes: -1}
	switch c {
	case "", CompressionAuto:
		choice.auto = true
	case CompressionNone:
	default:
		choice.fixed = compression.Name(c)
	}
	return choice
}

// choose says how to compress a chunk that a worker has just taken, given how many are waiting still and how many
// writes to the storage are under way.
func (c *compressionChoice) choose(waiting, writing int) compression.Name {
	if !c.auto {
		return c.fixed
	}
	idle := c.idle()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writes < 0 {
		c.writes = float64(writing)
	}
	c.writes += (float64(writing) - c.writes) / writesSmoothing
	switch {
	case c.writes >= shortWrites*float64(c.most): // chunks may wait, but for the storage
		c.pressure--
	case waiting >= c.busy || idle < shortIdle:
		c.pressure++
	case waiting == 0 && idle > amplyIdle:
		c.pressure--
	}
	c.pressure = min(max(c.pressure, 0), pressureSteps)
	switch c.pressure {
	case 0:
		c.fast = false
	case pressureSteps:
		c.fast = true
	}
	if c.fast {
		return compression.Name(CompressionS2)
	}
	return compression.Name(CompressionZstd)
}
