package wire

import (
	"net"
	"syscall"
)

// acknowledgeAtOnce asks the kernel not to wait before it acknowledges what comes next. telnetd sends in small pieces and, by
// Nagle's algorithm, waits for the acknowledgement of one before it sends the next: 40 ms for every answer otherwise. The
// kernel forgets this from time to time, tcp(7). Where it cannot be done nothing is lost but time.
func acknowledgeAtOnce(c net.Conn) {
	t, ok := c.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := t.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_QUICKACK, 1)
		})
	}
}
