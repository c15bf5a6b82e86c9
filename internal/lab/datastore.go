package lab

import (
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// datastoreCapacity is the size that every datastore claims to have.
const datastoreCapacity = 8 << 40

// formatDatastores makes the datastores say what most are: the simulator's are of no known type.
func (l *Lab) formatDatastores(ctx *simulator.Context) {
	for _, entity := range ctx.Map.All("Datastore") {
		if ds, ok := entity.(*simulator.Datastore); ok {
			ctx.WithLock(ds, func() {
				ctx.Update(ds, []types.PropertyChange{{Name: "summary.type", Val: "VMFS"}})
			})
		}
	}
}

// refreshDatastores recomputes the free space of the datastores.
func (l *Lab) refreshDatastores(ctx *simulator.Context) {
	for _, entity := range ctx.Map.All("Datastore") {
		ds, ok := entity.(*simulator.Datastore)
		if !ok {
			continue
		}
		free := max(datastoreCapacity-l.reserved(ds.Name), 0)
		ctx.WithLock(ds, func() {
			info := clone(ds.Info)
			base := info.GetDatastoreInfo()
			base.FreeSpace, base.MaxFileSize = free, datastoreCapacity
			base.Timestamp = types.NewTime(time.Now())
			ctx.Update(ds, []types.PropertyChange{
				{Name: "summary.capacity", Val: int64(datastoreCapacity)},
				{Name: "summary.freeSpace", Val: free},
				{Name: "info", Val: info},
			})
		})
	}
}

// reserved is the space that the disks of a datastore take: thick ones all of theirs.
func (l *Lab) reserved(datastore string) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var sum int64
	for _, name := range l.store.Names() {
		if !strings.HasPrefix(name, "["+datastore+"] ") {
			continue
		}
		if info, err := l.store.Stat(name); err == nil {
			if l.thick[name] {
				sum += info.Capacity
			} else {
				sum += info.AllocatedBytes
			}
		}
	}
	return sum
}
