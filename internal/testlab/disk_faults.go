//go:build linux

package testlab

import (
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// faulty lets a disk's fault decide before the file system below acts. What the kernel
// answers from memory on a real disk passes: names and attributes, locks, closing.
type faulty struct {
	fuse.RawFileSystem
	disk *Disk
}

func (f *faulty) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	if s := f.disk.admit(reads); !s.Ok() {
		return nil, s
	}
	return f.RawFileSystem.Read(cancel, in, buf)
}

func (f *faulty) StatFs(cancel <-chan struct{}, in *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	if s := f.disk.admit(reads); !s.Ok() {
		return s
	}
	s := f.RawFileSystem.StatFs(cancel, in, out)
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if f.disk.fault.full {
		out.Bfree, out.Bavail = 0, 0
	}
	return s
}

func (f *faulty) Write(cancel <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	if s := f.disk.admit(writes); !s.Ok() {
		return 0, s
	}
	return f.RawFileSystem.Write(cancel, in, data)
}

func (f *faulty) Writev(cancel <-chan struct{}, in *fuse.WriteIn, data [][]byte) (uint32, fuse.Status) {
	if s := f.disk.admit(writes); !s.Ok() {
		return 0, s
	}
	return f.RawFileSystem.Writev(cancel, in, data)
}

func (f *faulty) CopyFileRange(cancel <-chan struct{}, in *fuse.CopyFileRangeIn) (uint32, fuse.Status) {
	if s := f.disk.admit(writes); !s.Ok() {
		return 0, s
	}
	return f.RawFileSystem.CopyFileRange(cancel, in)
}

func (f *faulty) Fallocate(cancel <-chan struct{}, in *fuse.FallocateIn) fuse.Status {
	if s := f.disk.admit(writes); !s.Ok() {
		return s
	}
	return f.RawFileSystem.Fallocate(cancel, in)
}

func (f *faulty) Fsync(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if s := f.disk.admit(syncs); !s.Ok() {
		return s
	}
	return f.RawFileSystem.Fsync(cancel, in)
}

func (f *faulty) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	if s := f.disk.admit(syncs); !s.Ok() {
		return s
	}
	return f.RawFileSystem.FsyncDir(cancel, in)
}

func (f *faulty) Open(cancel <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.Flags&unix.O_TRUNC != 0 {
		if s := f.disk.admit(writes); !s.Ok() {
			return s
		}
	}
	in.Flags = readable(in.Flags)
	s := f.RawFileSystem.Open(cancel, in, out)
	out.OpenFlags |= fuse.FOPEN_KEEP_CACHE // nobody else writes the files
	return s
}

// readable makes a file that is open for writing open for reading too: to write a part
// of a page the kernel reads the rest.
func readable(flags uint32) uint32 {
	if flags&unix.O_ACCMODE == unix.O_WRONLY {
		flags = flags&^unix.O_ACCMODE | unix.O_RDWR
	}
	return flags
}

func (f *faulty) Create(cancel <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	if s := f.disk.admit(writes); !s.Ok() {
		return s
	}
	in.Flags = readable(in.Flags)
	return f.RawFileSystem.Create(cancel, in, name, out)
}

func (f *faulty) Mkdir(cancel <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	if s := f.disk.admit(writes); !s.Ok() {
		return s
	}
	return f.RawFileSystem.Mkdir(cancel, in, name, out)
}

func (f *faulty) Rename(cancel <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	if s := f.disk.admit(syncs); !s.Ok() { // takes no space
		return s
	}
	return f.RawFileSystem.Rename(cancel, in, from, to)
}

func (f *faulty) Unlink(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	if s := f.disk.admit(reads); !s.Ok() { // takes no space
		return s
	}
	return f.RawFileSystem.Unlink(cancel, in, name)
}

func (f *faulty) SetAttr(cancel <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	if s := f.disk.admit(reads); !s.Ok() { // a larger file takes no space before it is written
		return s
	}
	return f.RawFileSystem.SetAttr(cancel, in, out)
}
