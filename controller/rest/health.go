package rest

import (
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// livez says that the process answers.
func (s *Server) livez(c *gin.Context) { c.String(http.StatusOK, "ok\n") }

// readyz says whether the node can serve: unsealed, and with a leader known.
func (s *Server) readyz(c *gin.Context) {
	_, _, led := s.Raft.Leader()
	switch {
	case s.Seal.Sealed():
		c.String(http.StatusServiceUnavailable, "sealed\n")
	case !led:
		c.String(http.StatusServiceUnavailable, "no leader\n")
	default:
		c.String(http.StatusOK, "ok\n")
	}
}

func (s *Server) serveMetrics(c *gin.Context) {
	promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{}).ServeHTTP(c.Writer, c.Request)
}

// apiMetrics counts requests by route, never by path: paths hold names.
type apiMetrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newAPIMetrics(reg prometheus.Registerer) *apiMetrics {
	m := &apiMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "reeve_api_requests_total", Help: "API requests by method, route and status.",
		}, []string{"method", "route", "status"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "reeve_api_request_seconds", Help: "Time to answer, by route.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 4, 8),
		}, []string{"route"}),
	}
	reg.MustRegister(m.requests, m.duration)
	return m
}

func (m *apiMetrics) observe(method, route string, status int, took time.Duration) {
	if route == "" {
		route = "none"
	}
	m.requests.WithLabelValues(method, route, strconv.Itoa(status)).Inc()
	m.duration.WithLabelValues(route).Observe(took.Seconds())
}
