// Command registry serves distribution v3 and counts what it sends and receives.
//
// Blobs lie below -root. -addr may end in :0; the address that it listens on is
// the first line on stdout. GET /_served gives {digest: {"bytes", "requests"}} of
// the blobs and manifests sent, GET /_received {repository: {"blobs", "manifests",
// "uploads"}} of the bytes of requests' bodies, per upload too, and GET /_requests
// a list of all requests. A POST to any of the three begins to count anew.
//
// -auth names a file with the `auth` part of a registry's configuration, -tls-cert
// and -tls-key make it HTTPS, -client-ca asks for client certificates as well. With
// -referrers it has the referrers API too, which distribution lacks.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/auth/token"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

type served struct {
	Bytes    int64 `json:"bytes"`
	Requests int64 `json:"requests"`
}

type received struct {
	Blobs     int64            `json:"blobs"`
	Manifests int64            `json:"manifests"`
	Uploads   map[string]int64 `json:"uploads"`
}

type request struct {
	Time     float64 `json:"time"`
	Method   string  `json:"method"`
	Path     string  `json:"path"`
	Query    string  `json:"query"`
	Range    string  `json:"range"`
	Status   int     `json:"status"`
	Bytes    int64   `json:"bytes"`
	Received int64   `json:"received"`
	// The scheme alone: Basic, Bearer or nothing.
	Authorization string `json:"authorization"`
}

// into matches what bodies are sent to: a repository, and an upload or a manifest in it.
var into = regexp.MustCompile(`^/v2/(.+)/(?:blobs/uploads/([^/]*)|(manifests)/[^/]+)$`)

type counter struct {
	next     http.Handler
	mu       sync.Mutex
	served   map[string]*served
	received map[string]*received
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

// body counts bytes as they are received, those of requests that are cut too.
type body struct {
	io.ReadCloser
	c *counter
	r *request
	// nil where the path is none that a push sends anything to.
	in     *received
	upload string
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.c.mu.Lock()
	defer b.c.mu.Unlock()
	b.r.Received += int64(n)
	switch {
	case b.in == nil:
	case b.upload == "":
		b.in.Manifests += int64(n)
	default:
		b.in.Blobs += int64(n)
		b.in.Uploads[b.upload] += int64(n)
	}
	return n, err
}

// body makes the counting body of a request; c.mu is held.
func (c *counter) body(r *http.Request, about *request) *body {
	b := &body{ReadCloser: r.Body, c: c, r: about}
	if at := into.FindStringSubmatch(r.URL.Path); at != nil {
		if c.received[at[1]] == nil {
			c.received[at[1]] = &received{Uploads: map[string]int64{}}
		}
		b.in = c.received[at[1]]
		if b.upload = at[2]; b.upload == "" && at[3] == "" {
			// A POST that brings the whole blob, before the upload has a name.
			b.upload = "POST"
		}
	}
	return b
}

func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/_served", "/_received", "/_requests":
		c.mu.Lock()
		defer c.mu.Unlock()
		if r.Method == http.MethodPost {
			c.served = map[string]*served{}
			c.received = map[string]*received{}
			c.requests = nil
		}
		json.NewEncoder(w).Encode(map[string]any{
			"/_served": c.served, "/_received": c.received, "/_requests": c.requests,
		}[r.URL.Path])
		return
	}
	scheme, _, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	cw := &writer{ResponseWriter: w, c: c, r: &request{
		Time: float64(time.Now().UnixNano()) / 1e9, Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery,
		Range: r.Header.Get("Range"), Authorization: scheme,
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
	r.Body = c.body(r, cw.r)
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
	auth := flag.String("auth", "", "file with the `auth` part of the configuration")
	certificate := flag.String("tls-cert", "", "PEM file of a certificate: HTTPS instead of HTTP")
	key := flag.String("tls-key", "", "PEM file of its key")
	clients := flag.String("client-ca", "", "PEM file of what client certificates must be signed by")
	api := flag.Bool("referrers", false, "answer the referrers API")
	flag.Parse()
	text := fmt.Sprintf(settings, *root, *addr)
	if *auth != "" {
		more, err := os.ReadFile(*auth)
		if err != nil {
			log.Fatal(err)
		}
		text += string(more)
	}
	cfg, err := configuration.Parse(strings.NewReader(text))
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{TLSConfig: &tls.Config{}}
	if *clients != "" {
		pem, err := os.ReadFile(*clients)
		if err != nil {
			log.Fatal(err)
		}
		server.TLSConfig.ClientCAs = x509.NewCertPool()
		server.TLSConfig.ClientCAs.AppendCertsFromPEM(pem)
		server.TLSConfig.ClientAuth = tls.RequireAndVerifyClientCert
	}
	l, err := net.Listen("tcp", *addr)
	if err != nil {
		log.Fatal(err)
	}
	var app http.Handler = handlers.NewApp(context.Background(), cfg)
	if *api {
		app = &referrers{next: app, known: map[string][]descriptor{}}
	}
	server.Handler = &counter{next: app, served: map[string]*served{}, received: map[string]*received{}}
	fmt.Println(l.Addr())
	if *certificate != "" {
		log.Fatal(server.ServeTLS(l, *certificate, *key))
	}
	log.Fatal(server.Serve(l))
}
