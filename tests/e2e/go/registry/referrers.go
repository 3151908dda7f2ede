package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
)

var (
	manifestPath  = regexp.MustCompile(`^/v2/(.+)/manifests/[^/]+$`)
	referrersPath = regexp.MustCompile(`^/v2/(.+)/referrers/(sha256:[0-9a-f]{64})$`)
)

type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       digest.Digest     `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

type manifest struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Config       descriptor        `json:"config"`
	Subject      *descriptor       `json:"subject"`
	Annotations  map[string]string `json:"annotations"`
}

// referrers answers the referrers API of OCI's distribution specification 1.1, which distribution v3
// does not have, for manifests that were pushed since the start.
type referrers struct {
	next http.Handler
	mu   sync.Mutex
	// By repository and subject.
	known map[string][]descriptor
}

// subjectWriter says with a success that the manifest's subject was understood.
type subjectWriter struct {
	http.ResponseWriter
	subject digest.Digest
	created bool
}

func (w *subjectWriter) WriteHeader(status int) {
	if w.created = status == http.StatusCreated; w.created {
		w.Header().Set("OCI-Subject", w.subject.String())
	}
	w.ResponseWriter.WriteHeader(status)
}

func (h *referrers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if at := referrersPath.FindStringSubmatch(r.URL.Path); at != nil && r.Method == http.MethodGet {
		h.list(w, at[1]+"@"+at[2], r.URL.Query().Get("artifactType"))
		return
	}
	at := manifestPath.FindStringSubmatch(r.URL.Path)
	if at == nil || r.Method != http.MethodPut {
		h.next.ServeHTTP(w, r)
		return
	}
	content, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(content))
	var m manifest
	if json.Unmarshal(content, &m) != nil || m.Subject == nil {
		h.next.ServeHTTP(w, r)
		return
	}
	sw := &subjectWriter{ResponseWriter: w, subject: m.Subject.Digest}
	h.next.ServeHTTP(sw, r)
	if !sw.created {
		return
	}
	if m.ArtifactType == "" {
		m.ArtifactType = m.Config.MediaType
	}
	found := descriptor{MediaType: r.Header.Get("Content-Type"), Digest: digest.FromBytes(content),
		Size: int64(len(content)), ArtifactType: m.ArtifactType, Annotations: m.Annotations}
	h.mu.Lock()
	defer h.mu.Unlock()
	subject := at[1] + "@" + m.Subject.Digest.String()
	for _, each := range h.known[subject] {
		if each.Digest == found.Digest {
			return
		}
	}
	h.known[subject] = append(h.known[subject], found)
}

func (h *referrers) list(w http.ResponseWriter, subject, artifactType string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	found := []descriptor{}
	for _, each := range h.known[subject] {
		if artifactType == "" || strings.EqualFold(each.ArtifactType, artifactType) {
			found = append(found, each)
		}
	}
	w.Header().Set("Content-Type", "application/vnd.oci.image.index.v1+json")
	if artifactType != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	json.NewEncoder(w).Encode(map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": found,
	})
}
