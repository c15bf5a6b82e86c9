package repository

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"time"
)

// idlePeriod is how long an idleMeter looks at what processors did until it says something else.
const idlePeriod = 100 * time.Millisecond

// processorTime is how long all processors of the machine together were idle since it started, and how long that is all
// in all, in ticks of the system.
type processorTime struct{ idle, total uint64 }

// readProcessorTime is the machine's. It isn't known but on Linux.
func readProcessorTime() (processorTime, bool) {
	file, err := os.Open("/proc/stat")
	if err != nil {
		return processorTime{}, false
	}
	defer func() { _ = file.Close() }() // only read
	b := make([]byte, 512)              // what is looked for is in the first line
	n, err := file.Read(b)
	if err != nil {
		return processorTime{}, false
	}
	return parseProcessorTime(b[:n])
}

// parseProcessorTime reads the first line of /proc/stat (proc_stat(5)): "cpu" and times in user mode, nice, system,
// idle, waiting for a disk, in interrupts of two kinds, and stolen by another guest. What comes after them is part of the
// first two.
func parseProcessorTime(text []byte) (t processorTime, ok bool) {
	const idle, waiting, times = 3, 4, 8
	line, _, whole := bytes.Cut(text, []byte("\n"))
	fields := bytes.Fields(line)
	if !whole || len(fields) <= times || string(fields[0]) != "cpu" {
		return t, false
	}
	for i, field := range fields[1 : times+1] {
		n, err := strconv.ParseUint(string(field), 10, 60)
		if err != nil {
			return processorTime{}, false
		}
		t.total += n
		if i == idle || i == waiting {
			t.idle += n
		}
	}
	return t, true
}

// An idleMeter says what share of their time the processors of the machine have nothing to do, whoever uses them.
type idleMeter struct {
	read func() (processorTime, bool)
	now  func() time.Time

	mu    sync.Mutex
	next  time.Time // when to look again
	last  processorTime
	known bool // last is
	idle  float64
}

func newIdleMeter() *idleMeter {
	return &idleMeter{read: readProcessorTime, now: time.Now, idle: 1}
}

// share is from 0 to 1, of the last idlePeriod or somewhat longer. It is 1 where that isn't known.
func (m *idleMeter) share() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if now.Before(m.next) {
		return m.idle
	}
	m.next = now.Add(idlePeriod)
	t, ok := m.read()
	// The system's own books may go back a little.
	if ok && m.known && t.total > m.last.total && t.idle >= m.last.idle {
		m.idle = min(float64(t.idle-m.last.idle)/float64(t.total-m.last.total), 1)
	} else {
		m.idle = 1
	}
	m.last, m.known = t, ok
	return m.idle
}
