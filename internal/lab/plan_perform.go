package lab

import (
	"errors"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/terraform-vm/terraform-provider-vm/internal/lab/diskstore"
	"github.com/vmware/govmomi/vim25/types"
)

// perform changes the files of disks. On a fault it undoes what it made; what destroys comes last.
func (p *plan) perform() types.BaseMethodFault {
	var made []string
	for _, o := range p.ops {
		var err error
		switch {
		case o.kind == opCreate && p.replaces(o.file):
			if err = p.lab.removeDisk(o.file); err == nil {
				err = p.create(o)
			}
		case o.kind == opCreate:
			if err = p.create(o); err == nil {
				made = append(made, o.file)
			}
		case o.kind == opExtend:
			if err = p.lab.store.Extend(o.file, o.capacity); err == nil {
				p.lab.writeDescriptor(o.file)
			}
		case o.kind == opAttach:
			p.lab.setDiskUUID(o.file, o.uuid)
		}
		if err != nil {
			for _, file := range made {
				_ = p.lab.removeDisk(file)
			}
			return storeFault(o.file, err)
		}
	}
	for _, o := range p.ops {
		if o.kind != opDestroy || p.taken[o.file] {
			continue
		}
		if err := p.lab.removeDisk(o.file); err != nil && !errors.Is(err, diskstore.ErrNotExist) {
			return storeFault(o.file, err)
		}
	}
	return nil
}

// replaces says whether a file is removed and made anew by the same plan.
func (p *plan) replaces(file string) bool {
	for _, o := range p.ops {
		if o.kind == opDestroy && o.file == file && p.lab.exists(file) {
			return true
		}
	}
	return false
}

func (p *plan) create(o diskOp) error {
	var err error
	switch {
	case o.parent != "":
		err = p.lab.store.CreateChild(o.file, o.parent)
	case o.source != "":
		err = p.lab.store.Clone(o.source, o.file)
	default:
		err = p.lab.store.Create(o.file, o.capacity)
	}
	if err != nil {
		return err
	}
	p.lab.mu.Lock()
	p.lab.thick[o.file] = o.thick
	p.lab.made[o.file] = o.make
	p.lab.mu.Unlock()
	p.lab.setDiskUUID(o.file, o.uuid)
	p.lab.writeDescriptor(o.file)
	return nil
}

// diskUUID is the identity that is written in a disk's descriptor. All files of a chain have the same.
func (l *Lab) diskUUID(file string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	id, ok := l.diskUUIDs[baseName(file)]
	if !ok {
		id = newDiskUUID()
		l.diskUUIDs[baseName(file)] = id
	}
	return id
}

func (l *Lab) setDiskUUID(file, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.diskUUIDs[baseName(file)] = strings.ToLower(id)
}

func (l *Lab) isThick(file string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.thick[file]
}

func (l *Lab) madeAs(file string) diskMake {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.made[file]
}

// removeDirectory removes the files of a VM beside its disks, and the directory if that leaves it empty.
// stems are what the names of the VM's files begin with.
func (l *Lab) removeDirectory(name string, stems ...string) {
	dir, ok := l.path(name)
	if !ok {
		return
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // gone already
	}
	for _, e := range entries {
		own := strings.HasPrefix(e.Name(), "vmware") && path.Ext(e.Name()) == ".log"
		for _, stem := range stems {
			own = own || strings.HasPrefix(e.Name(), stem+".") || strings.HasPrefix(e.Name(), stem+"-Snapshot")
		}
		if own && !e.IsDir() && path.Ext(e.Name()) != ".vmdk" {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir) // stays when something is left in it
}
