package repository

import (
	"strings"
	"testing"
	"time"
)

func TestIdleMeter(t *testing.T) {
	t.Parallel()
	var books processorTime
	known := true
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	m := &idleMeter{read: func() (processorTime, bool) { return books, known }, now: func() time.Time { return now }, idle: 1}
	for i, step := range []struct {
		after       time.Duration
		idle, total uint64
		known       bool
		want        float64
	}{
		{0, 1000, 5000, true, 1}, // there is nothing to compare with
		{idlePeriod - 1, 1000, 6000, true, 1},
		{1, 1250, 6000, true, 0.25}, // all since the first look
		{idlePeriod - 1, 1250, 7000, true, 0.25},
		{1, 1250, 7000, true, 0},
		{idlePeriod, 2250, 8000, true, 1},
		{idlePeriod, 2250, 8000, true, 1}, // no time has passed
		{idlePeriod, 2240, 8100, true, 1}, // it goes back
		{idlePeriod, 2290, 8200, true, 0.5},
		{idlePeriod, 3000, 8300, true, 1}, // more than there was
		{idlePeriod, 0, 0, false, 1},
		{idlePeriod, 3000, 8500, true, 1},
		{10 * idlePeriod, 3100, 9500, true, 0.1},
	} {
		now = now.Add(step.after)
		books, known = processorTime{step.idle, step.total}, step.known
		if got := m.share(); got != step.want {
			t.Errorf("step %d: %g, want %g", i, got, step.want)
		}
	}
}

func TestParseProcessorTime(t *testing.T) {
	t.Parallel()
	const rest = "cpu0 1 2 3 4 5 6 7 8 9 10\nintr 1\n"
	for text, want := range map[string]processorTime{
		"cpu  10 20 30 400 5 6 7 8 9 10\n" + rest: {405, 486}, // without the times of guests
		"cpu 1 2 3 4 5 6 7 8\n":                   {9, 36},
	} {
		if got, ok := parseProcessorTime([]byte(text)); !ok || got != want {
			t.Errorf("%q: %+v, %v, want %+v", text, got, ok, want)
		}
	}
	for _, text := range []string{
		"", "\n", "cpu", "cpu 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 5 6 7\n", rest, "cpu 1 2 3 4 5 6 7 -8\n", "cpu 1 2 x 4 5 6 7 8\n",
		"cpu 1 2 3 4 5 6 7 " + strings.Repeat("9", 30) + "\n",
	} {
		if got, ok := parseProcessorTime([]byte(text)); ok || got != (processorTime{}) {
			t.Errorf("%q: %+v, %v", text, got, ok)
		}
	}
	if got, ok := readProcessorTime(); ok && (got.total == 0 || got.idle > got.total) {
		t.Errorf("this machine: %+v", got)
	}
}

func FuzzParseProcessorTime(f *testing.F) {
	f.Add([]byte("cpu  10 20 30 400 5 6 7 8 9 10\ncpu0 1 2 3 4 5 6 7 8 9 10\n"))
	f.Add([]byte("cpu 1 2 3 4 5 6 7\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, ok := parseProcessorTime(text)
		if got.idle > got.total || !ok && got != (processorTime{}) {
			t.Errorf("%q: %+v, %v", text, got, ok)
		}
	})
}
