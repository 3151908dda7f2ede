// Command registry serves distribution v3 and counts what it sends.
//
// Blobs lie below -root. -addr may end in :0; the address that it listens on is
// the first line on stdout. GET /_served gives {digest: {"bytes", "requests"}} of
// the blobs and manifests sent since the last POST /_served, and GET /_requests a
// list of all requests.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

type served struct {
	Bytes    int64 `json:"bytes"`
	Requests int64 `json:"requests"`
}

type request struct {
	Time   float64 `json:"time"`
	Method string  `json:"method"`
	Path   string  `json:"path"`
	Range  string  `json:"range"`
	Status int     `json:"status"`
	Bytes  int64   `json:"bytes"`
}

type counter struct {
	next     http.Handler
	mu       sync.Mutex
	served   map[string]*served
	requests []*request
}

type writer struct {
	http.ResponseWriter
	c     *counter
	r     *request
	count *served
}

func (w *writer) WriteHeader(status int) {
	w.c.mu.Lock()
	w.r.Status = status
	w.c.mu.Unlock()
	w.ResponseWriter.WriteHeader(status)
}

// Write counts bytes as they are sent, so that a count in the middle of a response is right.
func (w *writer) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	if w.r.Status == 0 {
		w.r.Status = http.StatusOK
	}
	w.r.Bytes += int64(n)
	if w.count != nil {
		w.count.Bytes += int64(n)
	}
	return n, err
}

func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/_served":
		c.mu.Lock()
		defer c.mu.Unlock()
		if r.Method == http.MethodPost {
			c.served = map[string]*served{}
			c.requests = nil
		}
		json.NewEncoder(w).Encode(c.served)
		return
	case "/_requests":
		c.mu.Lock()
		defer c.mu.Unlock()
		json.NewEncoder(w).Encode(c.requests)
		return
	}
	cw := &writer{ResponseWriter: w, c: c, r: &request{
		Time: float64(time.Now().UnixNano()) / 1e9, Method: r.Method, Path: r.URL.Path, Range: r.Header.Get("Range"),
	}}
	c.mu.Lock()
	c.requests = append(c.requests, cw.r)
	if name := path.Base(r.URL.Path); r.Method == http.MethodGet && strings.HasPrefix(name, "sha256:") {
		if c.served[name] == nil {
			c.served[name] = &served{}
		}
		cw.count = c.served[name]
		cw.count.Requests++
	}
	c.mu.Unlock()
	c.next.ServeHTTP(cw, r)
}

const settings = `version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q, maxthreads: 100}
  delete: {enabled: true}
  maintenance: {uploadpurging: {enabled: false}}
http: {addr: %q, secret: e2e}
`

func main() {
	addr := flag.String("addr", "127.0.0.1:0", "address to listen on")
	root := flag.String("root", "", "directory of the blobs")
	flag.Parse()
	var settingsReader io.Reader = strings.NewReader(fmt.Sprintf(settings, *root, *addr))
	cfg, err := configuration.Parse(settingsReader)
	if err != nil {
		log.Fatal(err)
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(l.Addr())
	app := handlers.NewApp(context.Background(), cfg)
	log.Fatal(http.Serve(l, &counter{next: app, served: map[string]*served{}}))
}
