package sdktest_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-plugin"

	"github.com/reeve-pam/reeve/plugins/sdk"
)

// programFlaws are broken programs by the check that must notice.
var programFlaws = map[string]string{
	"SDK34": "leaves-a-lock", "SDK35": "leaves-a-lock", "SDK36": "leaves-a-lock", "SDK37": "leaves-a-lock", "SDK38": "leaves-a-lock",
	"SDK88": "claims-the-future",
	"SDK90": "leaves-a-goroutine", "SDK91": "leaves-a-descriptor", "SDK92": "leaves-a-process", "SDK93": "leaves-a-file",
}

// kept is what broken programs hold on to.
var kept []*os.File

// leaving is the toy connector that does something with every verdict.
func leaving(f func()) broken {
	var mu sync.Mutex
	return broken{verify: func(ctx context.Context, t sdk.Target, c sdk.Credential) (sdk.Verdict, error) {
		mu.Lock()
		f()
		mu.Unlock()
		return good.Verify(ctx, t, c)
	}}
}

// brokenPrograms are what this test program is when it is started by another name.
var brokenPrograms = map[string]func(){
	// A lock that a crash leaves: a file beside the program.
	"leaves-a-lock": func() {
		sdk.Serve(broken{apply: func(ctx context.Context, t sdk.Target, ch sdk.Change, p sdk.Progress) (sdk.Result, error) {
			path := filepath.Join(filepath.Dir(os.Args[0]), "lock-"+ch.Intent.Account)
			lock, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return sdk.Result{}, sdk.Errorf(sdk.ClassBusy, "somebody is at it")
			}
			_ = lock.Close()
			r, err := good.Apply(ctx, t, ch, func(e sdk.Event) {
				p(e)
				time.Sleep(50 * time.Millisecond) // long enough to be killed
			})
			_ = os.Remove(path)
			return r, err
		}})
	},
	"claims-the-future": func() {
		sets := map[int]plugin.PluginSet{}
		for v := range sdk.ProtocolVersion + 1 {
			sets[v+1] = plugin.PluginSet{sdk.PluginName: &sdk.Plugin{Connector: good}}
		}
		plugin.Serve(&plugin.ServeConfig{HandshakeConfig: sdk.Handshake(), VersionedPlugins: sets, GRPCServer: plugin.DefaultGRPCServer})
	},
	"leaves-a-goroutine": func() { sdk.Serve(leaving(func() { go func() { select {} }() })) },
	"leaves-a-descriptor": func() {
		sdk.Serve(leaving(func() {
			f, err := os.Open(os.DevNull)
			if err != nil {
				panic(err)
			}
			kept = append(kept, f)
		}))
	},
	"leaves-a-process": func() {
		sdk.Serve(leaving(func() {
			child := exec.Command("/bin/sleep", "10")
			child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // the test leaves none
			if err := child.Start(); err != nil {
				panic(err)
			}
		}))
	},
	"leaves-a-file": func() {
		sdk.Serve(leaving(func() {
			f, err := os.CreateTemp("", "password-")
			if err != nil {
				panic(err)
			}
			_ = f.Close()
		}))
	},
}

func TestMain(m *testing.M) {
	if serve := brokenPrograms[filepath.Base(os.Args[0])]; serve != nil {
		serve()
		return
	}
	os.Exit(m.Run())
}

// brokenProgram gives this test program another name.
func brokenProgram(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}
