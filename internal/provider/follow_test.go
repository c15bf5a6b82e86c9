package provider

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/terraform-plugin-framework-timeouts/resource/timeouts"
	"github.com/hashicorp/terraform-plugin-framework/attr"
	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/types"
	"github.com/hashicorp/terraform-plugin-log/tflogtest"

	"github.com/terraform-vm/terraform-provider-vm/internal/progress"
)

// A timedBuffer is a log that knows when its lines were written.
type timedBuffer struct {
	mu    sync.Mutex
	b     bytes.Buffer
	times []time.Time
}

func (b *timedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.times = append(b.times, time.Now())
	return b.b.Write(p)
}

// TestLimitLogs has an operation of a resource take hours, by a fake clock: whatever it does, the log says something
// every 30 seconds.
func TestLimitLogs(t *testing.T) {
	t.Parallel()
	const most = 30 * time.Second
	log := &timedBuffer{}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		none := timeouts.Value{Object: types.ObjectNull(map[string]attr.Type{"create": types.StringType})}
		var diags diag.Diagnostics
		ctx, cancel := limit(tflogtest.RootLogger(t.Context(), log), none, timeouts.Value.Create, 24*time.Hour, &diags)
		time.Sleep(127 * time.Second) // nothing says what it does
		_, copying := progress.Enter(ctx, "copying the disks", "vm", "/DC0/vm/web01")
		copying.Measure(func() progress.Figures { return progress.Figures{Done: 1 << 30, Total: 4 << 30, Moved: 1 << 29} })
		time.Sleep(2*time.Hour + 7*time.Second)
		copying.Leave()
		synctest.Wait()
		_, removing := progress.Enter(ctx, "removing the temporary snapshot", "vm", "/DC0/vm/web01")
		time.Sleep(90 * time.Minute)
		removing.Leave()
		end := time.Now()
		cancel()
		if ctx.Err() == nil {
			t.Error("the context goes on")
		}
		for i, at := range append(log.times, end) {
			last := start
			if i > 0 {
				last = log.times[i-1]
			}
			if gap := at.Sub(last); gap > most {
				t.Errorf("nothing was said for %s after %s", gap, last.Sub(start))
			}
		}
	})
	text := log.b.String()
	entries, err := tflogtest.MultilineJSONDecode(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	said := func(message string, fields map[string]any) {
		t.Helper()
		for _, e := range entries {
			same := e["@message"] == message && e["@level"] == "info"
			for name, value := range fields {
				same = same && e[name] == value
			}
			if same {
				return
			}
		}
		t.Errorf("no line says %q with %v:\n%s", message, fields, text[:min(len(text), 2000)])
	}
	said("at work", map[string]any{"elapsed": "1m0s"})
	said("copying the disks", map[string]any{
		"vm": "/DC0/vm/web01", "percent": "25", "done_bytes": "1073741824", "total_bytes": "4294967296", "elapsed": "1m0s",
		"moved_bytes": "536870912", "mib_per_second": "8", "time_left": "3m0s",
	})
	said("copying the disks", map[string]any{"done": true, "elapsed": "2h0m7s"})
	said("removing the temporary snapshot", map[string]any{"vm": "/DC0/vm/web01", "elapsed": "1h0m1s"})
}
