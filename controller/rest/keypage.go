package rest

import (
	"embed"
	"net/http"

	"github.com/gin-gonic/gin"
)

// keyPage is the page on which a browser asks a security key for the command line. It holds
// nothing of anybody: what to ask is behind the # of its address, and the answer goes to the
// machine that the browser is on.
const keyPage = "/security-key"

//go:embed page
var pages embed.FS

// keyPagePolicy lets the page run its own script and load its own style, and nothing else.
const keyPagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func serveKeyPage(r gin.IRoutes) {
	for path, file := range map[string]struct{ name, kind string }{
		keyPage:          {"security-key.html", "text/html; charset=utf-8"},
		keyPage + ".js":  {"security-key.js", "text/javascript; charset=utf-8"},
		keyPage + ".css": {"security-key.css", "text/css; charset=utf-8"},
	} {
		r.GET(path, func(c *gin.Context) {
			text, err := pages.ReadFile("page/" + file.name)
			if err != nil {
				c.Status(http.StatusNotFound)
				return
			}
			h := c.Writer.Header()
			h.Set("Content-Security-Policy", keyPagePolicy)
			h.Set("Referrer-Policy", "no-referrer")
			h.Set("Cross-Origin-Opener-Policy", "same-origin")
			h.Set("Permissions-Policy", "publickey-credentials-create=(self), publickey-credentials-get=(self)")
			c.Data(http.StatusOK, file.kind, text)
		})
	}
}
