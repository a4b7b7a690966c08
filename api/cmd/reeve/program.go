package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// machines are what programs are built for, as Go calls it.
var machines = map[elf.Machine]string{
	elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_386: "386", elf.EM_ARM: "arm", elf.EM_RISCV: "riscv64",
	elf.EM_PPC64: "ppc64", elf.EM_S390: "s390x", elf.EM_LOONGARCH: "loong64",
}

// asProgram refuses a file that cannot be run here as a connector, with the reason: what
// the system says of it is much the same for all of them.
func asProgram(path string) error {
	refuse := func(code, fix, format string, args ...any) error {
		return usagef("%w", reeve.Errorf(reeve.Invalid, code, format, args...).WithFix("%s", fix))
	}
	build := fmt.Sprintf("build it for this machine: GOOS=%s GOARCH=%s go build", runtime.GOOS, runtime.GOARCH)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return refuse("connector_missing", "build the connector, or correct the path", "there is no file %s", path)
	case err != nil:
		return refuse("connector_unreadable", "correct the path, or the rights to it", "%s cannot be looked at: %v", path, bare(err))
	case info.IsDir():
		return refuse("connector_directory", "name the program in it", "%s is a directory, not a connector", path)
	case !info.Mode().IsRegular():
		return refuse("connector_no_file", "name the program itself", "%s is not a regular file", path)
	case info.Mode()&0o111 == 0:
		return refuse("connector_not_executable", "if it is the right file: chmod +x "+path, "%s is not executable", path)
	}
	f, err := os.Open(path) //nolint:gosec // what the user named
	if err != nil {
		return refuse("connector_unreadable", "make it readable: chmod a+r "+path, "%s cannot be read: %v", path, bare(err))
	}
	defer func() { _ = f.Close() }()
	var head [64]byte
	n, err := io.ReadFull(f, head[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return refuse("connector_unreadable", "look at the disk", "%s cannot be read: %v", path, bare(err))
	}
	for magic, what := range map[string]string{"#!": "a script", "MZ": "a program for Windows", "\xcf\xfa\xed\xfe": "a program for macOS", "\xca\xfe\xba\xbe": "a program for macOS"} {
		if bytes.HasPrefix(head[:n], []byte(magic)) {
			return refuse("connector_wrong_system", build, "%s is %s; a connector is a compiled program for %s/%s", path, what, runtime.GOOS, runtime.GOARCH)
		}
	}
	if n < 20 || !bytes.HasPrefix(head[:n], []byte(elf.ELFMAG)) {
		return refuse("connector_no_program", build, "%s is no program", path)
	}
	order := elf.Data(head[elf.EI_DATA])
	machine := elf.Machine(uint16(head[18]) | uint16(head[19])<<8)
	if order == elf.ELFDATA2MSB {
		machine = elf.Machine(uint16(head[18])<<8 | uint16(head[19]))
	}
	if is := machines[machine]; is != strings.TrimSuffix(runtime.GOARCH, "le") {
		if is == "" {
			is = machine.String()
		}
		return refuse("connector_wrong_system", build, "%s is built for %s/%s, and this machine is %s/%s", path, runtime.GOOS, is, runtime.GOOS, runtime.GOARCH)
	}
	return nil
}

// bare is what the system said, without the call and the path it was about.
func bare(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}
