package rest

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gin-gonic/gin"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// pipes is a listener of connections in memory, which know fake time.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	done  chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.done) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

// paced serves a handler behind pace, as the API does, to one connection.
func paced(t *testing.T, handler gin.HandlerFunc) (client net.Conn) {
	t.Helper()
	gin.SetMode(gin.ReleaseMode)
	e := gin.New()
	e.Use(func(c *gin.Context) { defer pace(c)(); c.Next() })
	e.Any("/", handler)
	l := &pipes{conns: make(chan net.Conn, 1), done: make(chan struct{})}
	srv := &http.Server{Handler: e, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 5 * time.Minute, IdleTimeout: time.Hour}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(l) }()
	client, server := net.Pipe()
	l.conns <- server
	t.Cleanup(func() {
		_ = client.Close()
		_ = srv.Close()
		<-served
		synctest.Wait()
	})
	return client
}

func TestABodyThatStallsIsGivenUp(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		every time.Duration // between single bytes
		bytes int
		err   string
	}{
		"at once":        {0, 1000, ""},
		"slow but whole": {10 * time.Millisecond, 2000, ""},
		"trickling":      {time.Second, 1000, "body_incomplete"},
		"stalled":        {time.Minute, 10, "body_incomplete"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var senders sync.WaitGroup
				t.Cleanup(senders.Wait)
				began := time.Now()
				result := make(chan error, 1)
				conn := paced(t, func(c *gin.Context) {
					_, err := io.Copy(io.Discard, c.Request.Body)
					result <- err
				})
				senders.Go(func() { _, _ = io.Copy(io.Discard, conn) })
				senders.Go(func() {
					_, _ = io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: "+strconv.Itoa(test.bytes)+"\r\n\r\n")
					for range test.bytes {
						time.Sleep(test.every)
						if _, err := conn.Write([]byte("x")); err != nil {
							return
						}
					}
				})
				err := <-result
				if err != nil {
					err = unread(err)
				}
				if reeve.CodeOf(err) != test.err {
					t.Errorf("%v, want %q", err, test.err)
				}
				if took := time.Since(began); test.err != "" && took != paceTime {
					t.Errorf("given up after %s", took)
				}
			})
		})
	}
}

func TestAReaderWhoTakesNothingIsGivenUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		result := make(chan error, 1)
		conn := paced(t, func(c *gin.Context) {
			_, err := c.Writer.Write(make([]byte, 3*paceBytes))
			result <- err
		})
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if err := <-result; err == nil || time.Since(began) != paceTime {
			t.Errorf("%v after %s", err, time.Since(began))
		}
	})
}

// A live log may be silent for longer than any limit, on either side.
func TestALongAnswerIsNotCutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		result := make(chan error, 2)
		conn := paced(t, func(c *gin.Context) {
			time.Sleep(20 * time.Minute)
			err := c.Request.Context().Err()
			_, failed := c.Writer.WriteString("one\n")
			c.Writer.Flush()
			time.Sleep(20 * time.Minute)
			result <- errors.Join(err, failed, c.Request.Context().Err())
		})
		in := bufio.NewReader(conn)
		for range 2 { // the second on the same connection, after a pause
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || string(body) != "one\n" {
				t.Fatalf("%q %v", body, err)
			}
			if err := <-result; err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Minute)
		}
	})
}

func TestAnUploadSaysWhyItBrokeOff(t *testing.T) {
	t.Parallel()
	big := &upload{r: http.MaxBytesReader(nil, io.NopCloser(strings.NewReader("12345")), 3)}
	if _, err := io.Copy(io.Discard, big); err == nil || reeve.CodeOf(unread(big.err)) != "body_too_large" {
		t.Errorf("%v, %v", err, big.err)
	}
	broken, w := io.Pipe()
	_ = w.CloseWithError(io.ErrUnexpectedEOF)
	up := &upload{r: broken}
	if _, err := io.Copy(io.Discard, up); err == nil || reeve.CodeOf(unread(up.err)) != "body_incomplete" {
		t.Errorf("%v, %v", err, up.err)
	}
	whole := &upload{r: strings.NewReader("12345")}
	if _, err := io.Copy(io.Discard, whole); err != nil || whole.err != nil {
		t.Errorf("%v, %v", err, whole.err)
	}
}
