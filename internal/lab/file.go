package lab

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// A datastore is a directory of the simulator with all files but the content of disks, which is in the
// disk store: of a disk the directory only has the descriptor and an empty extent.

// path finds the file of the host that stands for a file of a datastore.
func (l *Lab) path(name string) (string, bool) {
	var p object.DatastorePath
	if !p.FromString(name) || strings.Contains(p.Path, "..") {
		return "", false
	}
	for _, entity := range l.model.Map().All("Datastore") {
		if ds, ok := entity.(*simulator.Datastore); ok && ds.Name == p.Datastore {
			return filepath.Join(ds.Summary.Url, filepath.FromSlash(p.Path)), true
		}
	}
	return "", false
}

// fileStatus lists the files of all datastores.
func (l *Lab) fileStatus() []FileStatus {
	list := []FileStatus{}
	for _, entity := range l.model.Map().All("Datastore") {
		ds, ok := entity.(*simulator.Datastore)
		if !ok {
			continue
		}
		root := ds.Summary.Url
		_ = filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil //nolint:nilerr // gone meanwhile
			}
			rel, err := filepath.Rel(root, file)
			if err != nil {
				return nil //nolint:nilerr // can't be: file is below root
			}
			p := object.DatastorePath{Datastore: ds.Name, Path: filepath.ToSlash(rel)}
			list = append(list, FileStatus{Name: p.String(), Size: l.fileSize(p.String(), file)})
			return nil
		})
	}
	slices.SortFunc(list, func(a, b FileStatus) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// fileSize is the space that a file takes: that of an extent is in the disk store.
func (l *Lab) fileSize(name, file string) int64 {
	if descriptor := descriptorOf(name); descriptor != "" {
		if info, err := l.store.Stat(descriptor); err == nil {
			return info.AllocatedBytes
		}
	}
	if info, err := os.Stat(file); err == nil {
		return info.Size()
	}
	return 0
}

// descriptorOf is the name of the disk that an extent belongs to, "" for other files.
func descriptorOf(name string) string {
	for _, suffix := range []string{"-flat.vmdk", "-delta.vmdk", "-sesparse.vmdk"} {
		if base, ok := strings.CutSuffix(name, suffix); ok {
			return base + ".vmdk"
		}
	}
	return ""
}

// removeFile removes a file of a datastore, if it is there.
func (l *Lab) removeFile(name string) {
	if file, ok := l.path(name); ok {
		_ = os.Remove(file)
	}
}

// directory is the directory of a datastore file's name: "[ds] vm" of "[ds] vm/vm.vmx".
func directory(name string) string {
	var p object.DatastorePath
	p.FromString(name)
	p.Path = path.Dir(p.Path)
	return p.String()
}

// fileFault is a fault about a file.
func fileFault(name string) types.FileFault { return types.FileFault{File: name} }

// exists says whether a datastore has a file.
func (l *Lab) exists(name string) bool {
	file, ok := l.path(name)
	if !ok {
		return false
	}
	_, err := os.Stat(file)
	return err == nil
}
