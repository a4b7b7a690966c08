package sdktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// everyAt does every operation that logs in as the management account at another
// address, and checks how it fails.
func (s *suite) everyAt(ctx context.Context, at sdk.Target, judge func(what string, err error) error) error {
	a := s.account()
	in := s.intent(sdk.Provision, a)
	plan, err := s.client.Plan(ctx, s.cfg.Target, in)
	if err != nil {
		return err
	}
	calls := []struct {
		power sdk.Power
		call  func(context.Context) error
	}{
		{sdk.PowerProbe, func(ctx context.Context) error { _, err := s.client.Probe(ctx, at); return err }},
		{sdk.PowerProvision, func(ctx context.Context) error {
			_, err := s.applyPlan(ctx, at, in, plan, a.password)
			return err
		}},
		{sdk.PowerInspect, func(ctx context.Context) error { _, err := s.client.Inspect(ctx, at, a.name); return err }},
		{sdk.PowerDiscover, func(ctx context.Context) error {
			return s.client.Discover(ctx, at, func(sdk.Facts) bool { return true })
		}},
	}
	return together(len(calls), func(i int) error {
		c := calls[i]
		if !s.has(c.power) {
			return nil
		}
		began := time.Now()
		limited, cancel := context.WithTimeout(ctx, 2*allowed)
		defer cancel()
		err := c.call(limited)
		s.tellError("an error of "+string(c.power), err)
		if took := time.Since(began); took > 2*allowed+obeyWithin {
			return fmt.Errorf("%s answered %s after a deadline of %s", c.power, took, 2*allowed)
		}
		return judge(string(c.power), err)
	})
}

func nothingListens(ctx context.Context, s *suite) error {
	nobody, err := closedPort(ctx, s.cfg.Target)
	if err != nil {
		return err
	}
	return s.everyAt(ctx, nobody, func(what string, err error) error {
		return withFix(what+" where nothing listens", err, sdk.ClassUnreachable)
	})
}

func hangsAfterAccept(ctx context.Context, s *suite) error {
	p, quiet, err := newProxy(ctx, s.cfg.Target, silent, 0)
	if err != nil {
		return err
	}
	defer p.close()
	return s.everyAt(ctx, quiet, func(what string, err error) error {
		return withFix(what+" of a target that accepts and says nothing", err, sdk.ClassUnreachable)
	})
}

func hangsUp(ctx context.Context, s *suite) error {
	x, there, err := newStranger(ctx, s.cfg.Target, func(net.Conn) {})
	if err != nil {
		return err
	}
	defer x.close()
	return s.everyAt(ctx, there, func(what string, err error) error {
		return withFix(what+" of a target that hangs up", err, sdk.ClassUnreachable, sdk.ClassProtocol, sdk.ClassBusy)
	})
}

// otherService answers as a service of another kind would.
func otherService(ctx context.Context, s *suite) error {
	answer := []byte("HTTP/1.1 400 Bad Request\r\nServer: another\r\nConnection: keep-alive\r\n\r\n" + strings.Repeat("<p>no</p>\r\n", 400))
	for _, said := range [][]byte{answer, bytes.Repeat([]byte{0xff, 0, 0x16, 0x3c, 0x0a}, 1000)} {
		x, there, err := newStranger(ctx, s.cfg.Target, func(c net.Conn) {
			_, _ = c.Write(said)
			_, _ = io.Copy(io.Discard, c)
		})
		if err != nil {
			return err
		}
		err = s.everyAt(ctx, there, func(what string, err error) error {
			// A deadline may end the wait for something that makes sense.
			return withFix(fmt.Sprintf("%s of a service that says %q", what, said[:8]), err,
				sdk.ClassProtocol, sdk.ClassUnsupported, sdk.ClassUnreachable)
		})
		x.close()
		if err != nil {
			return err
		}
	}
	return nil
}

// memoryAllowed is what an endless answer may cost a program, in bytes.
const memoryAllowed = 64 << 20

func endlessAnswer(ctx context.Context, s *suite) error {
	x, there, err := newStranger(ctx, s.cfg.Target, func(c net.Conn) {
		block := bytes.Repeat([]byte("A"), 64<<10)
		for range 4 << 10 { // 256 MiB
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	})
	if err != nil {
		return err
	}
	defer x.close()
	before := s.peakMemory()
	err = s.everyAt(ctx, there, func(what string, err error) error {
		return withFix(what+" of a target whose answer does not end", err, sdk.ClassProtocol, sdk.ClassUnsupported, sdk.ClassUnreachable)
	})
	if grown := s.peakMemory() - before; err == nil && grown > memoryAllowed {
		err = fmt.Errorf("an endless answer cost %d MiB of memory", grown>>20)
	}
	return err
}

// peakMemory is the most memory the plugin program has used, in bytes; 0 if not known.
func (s *suite) peakMemory() int64 {
	if s.process == nil {
		return 0
	}
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.process.Pid), "status"))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	fields := strings.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kib, _ := strconv.ParseInt(fields[0], 10, 64)
	return kib << 10
}

// wrongIdentity does everything at a target that is not the trusted one.
func wrongIdentity(ctx context.Context, s *suite) error {
	if s.cfg.NoIdentity {
		return noIdentity
	}
	before, err := s.cfg.Snapshot(ctx)
	if err != nil {
		return err
	}
	t := s.cfg.Target
	t.Trust = s.cfg.WrongTrust
	err = s.everyAt(ctx, t, func(what string, err error) error {
		return withFix(what+" of a target that is not the trusted one", err, sdk.ClassHostKeyChanged)
	})
	if err != nil {
		return err
	}
	after, err := s.cfg.Snapshot(ctx)
	if err == nil && before != after {
		err = errors.New("a target that is not the trusted one was changed")
	}
	return err
}
