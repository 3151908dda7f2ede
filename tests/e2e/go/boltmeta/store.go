// Package boltmeta keeps the metadata of an eStargz layer in a bbolt database.
//
// containerd-stargz-grpc offers two metadata stores, "memory" and "db". The first
// is in the stargz-snapshotter library; the second lives in its cmd module, which
// has no released version (go-dbstore reads with the last one outside of it, which
// cannot be mounted). This package stands in for it: it goes over the TOC
// once, forwards, and so asks of a TOC what a store that cannot look ahead must
// ask. A hardlink's target comes before the hardlink, the chunks of a file follow
// its entry and are contiguous, and every chunk ends where the next member that
// the TOC names begins.
package boltmeta

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/metadata"
	digest "github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

var (
	bucketAttrs    = []byte("attrs")
	bucketChildren = []byte("children")
	bucketChunks   = []byte("chunks")
	bucketMembers  = []byte("members")
)

const rootID = 1

type chunk struct {
	Off    int64  // in the file
	Size   int64  // in the file
	Member int64  // where the gzip member begins in the blob
	Inner  int64  // where the chunk begins in the decompressed member
	Next   int64  // where the following member begins in the blob
	Digest string // of the chunk
}

// shared is a chunk of a member that holds others too.
type shared struct {
	ID uint32
	chunk
}

type node struct {
	attr     metadata.Attr
	children map[string]uint32
	chunks   []chunk
}

// Store gives a metadata.Store over one database; every layer has its own bucket.
func Store(db *bolt.DB) metadata.Store {
	return func(sr *io.SectionReader, opts ...metadata.Option) (metadata.Reader, error) {
		return NewReader(db, sr, opts...)
	}
}

// NewReader reads the TOC of sr into db.
func NewReader(db *bolt.DB, sr *io.SectionReader, opts ...metadata.Option) (*Reader, error) {
	var o metadata.Options
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	decompressors := append([]metadata.Decompressor{
		new(estargz.GzipDecompressor), new(estargz.LegacyGzipDecompressor),
	}, o.Decompressors...)
	var errs []error
	for _, d := range decompressors {
		r, err := open(db, sr, d, o.Telemetry)
		if err == nil {
			return r, nil
		}
		errs = append(errs, fmt.Errorf("%T: %w", d, err))
	}
	return nil, errors.Join(errs...)
}

func open(db *bolt.DB, sr *io.SectionReader, d metadata.Decompressor, t *metadata.Telemetry) (*Reader, error) {
	if t == nil {
		t = &metadata.Telemetry{}
	}
	start := time.Now()
	size := d.FooterSize()
	if sr.Size() < size {
		return nil, fmt.Errorf("a blob of %d bytes has no footer of %d", sr.Size(), size)
	}
	footer := make([]byte, size)
	if _, err := sr.ReadAt(footer, sr.Size()-size); err != nil {
		return nil, err
	}
	_, tocOffset, tocSize, err := d.ParseFooter(footer)
	if err != nil {
		return nil, err
	}
	report(t.GetFooterLatency, start)
	start = time.Now()
	var raw io.Reader // none: the TOC is not in the blob
	end := sr.Size()
	if tocOffset >= 0 {
		if tocSize <= 0 {
			tocSize = sr.Size() - tocOffset - size
		}
		raw, end = io.NewSectionReader(sr, tocOffset, tocSize), tocOffset
	}
	toc, err := d.DecompressTOC(raw)
	if err != nil {
		return nil, err
	}
	defer toc.Close()
	report(t.GetTocLatency, start)
	start = time.Now()
	hash := digest.Canonical.Digester()
	nodes, err := parse(io.TeeReader(toc, hash.Hash()), end)
	report(t.DeserializeTocLatency, start)
	if err != nil {
		return nil, err
	}
	r := &Reader{db: db, sr: sr, d: d, toc: hash.Digest(), count: len(nodes)}
	r.key = []byte(fmt.Sprintf("%s-%d", r.toc, time.Now().UnixNano()))
	return r, r.save(nodes)
}

func report(hook metadata.MeasureLatencyHook, start time.Time) {
	if hook != nil {
		hook(start)
	}
}

// parse goes over the entries once. The last member with data ends at end.
func parse(r io.Reader, end int64) (map[uint32]*node, error) {
	dec := json.NewDecoder(r)
	for {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		if d, ok := t.(json.Delim); ok && d == '[' {
			break
		}
	}
	root := &node{attr: metadata.Attr{Mode: os.ModeDir | 0o755, NumLink: 2}}
	nodes := map[uint32]*node{rootID: root}
	p := &parser{nodes: nodes, next: rootID + 1}
	for dec.More() {
		var e estargz.TOCEntry
		if err := dec.Decode(&e); err != nil {
			return nil, err
		}
		if err := p.add(&e); err != nil {
			return nil, fmt.Errorf("%q: %w", e.Name, err)
		}
	}
	if err := p.finish(end); err != nil {
		return nil, err
	}
	// The digest is over all of the JSON.
	if _, err := io.Copy(io.Discard, io.MultiReader(dec.Buffered(), r)); err != nil {
		return nil, err
	}
	return nodes, nil
}

type parser struct {
	nodes   map[uint32]*node
	next    uint32
	last    *node   // the file that chunks belong to
	pending []*node // files whose last chunks do not know yet where they end
}

func (p *parser) add(e *estargz.TOCEntry) error {
	name := strings.TrimPrefix(path.Clean("/"+e.Name), "/")
	if e.Type != "chunk" {
		if err := p.complete(); err != nil {
			return err
		}
		p.last = nil
	}
	if e.Offset > 0 && e.InnerOffset == 0 && (e.Type == "chunk" || e.Type == "reg" && e.Size > 0) {
		for _, n := range p.pending {
			n.end(e.Offset)
		}
		p.pending = nil
	}
	switch e.Type {
	case "chunk":
		if p.last == nil {
			return errors.New("a chunk that follows no file")
		}
		return p.chunk(e)
	case "hardlink":
		id, err := p.find(strings.TrimPrefix(path.Clean("/"+e.LinkName), "/"))
		if err != nil {
			return fmt.Errorf("a hardlink before its target %q: %w", e.LinkName, err)
		}
		p.nodes[id].attr.NumLink++
		return p.link(name, id)
	case "dir", "reg", "symlink", "char", "block", "fifo":
	default:
		return fmt.Errorf("type %q", e.Type)
	}
	if e.Type == "dir" {
		if id, err := p.find(name); err == nil { // made before as a parent, or the root
			links := p.nodes[id].attr.NumLink
			p.nodes[id].attr = attrOf(e)
			p.nodes[id].attr.NumLink = links
			return nil
		}
	}
	id := p.new(attrOf(e))
	if e.Type == "reg" {
		p.last = p.nodes[id]
		if e.Size > 0 {
			if err := p.chunk(e); err != nil {
				return err
			}
		}
	}
	return p.link(name, id)
}

// chunk adds one to the last file. The size of a last chunk is not told.
func (p *parser) chunk(e *estargz.TOCEntry) error {
	n := p.last
	size := e.ChunkSize
	if size == 0 {
		size = n.attr.Size - e.ChunkOffset
	}
	if want := n.covered(); e.ChunkOffset != want {
		return fmt.Errorf("a chunk at %d, not at %d", e.ChunkOffset, want)
	}
	if size <= 0 || e.ChunkOffset+size > n.attr.Size {
		return fmt.Errorf("a chunk of %d bytes at %d of %d", size, e.ChunkOffset, n.attr.Size)
	}
	n.chunks = append(n.chunks, chunk{
		Off: e.ChunkOffset, Size: size, Member: e.Offset, Inner: e.InnerOffset, Digest: e.ChunkDigest,
	})
	p.pending = append(p.pending, n)
	return nil
}

// complete checks that the chunks of the last file cover it.
func (p *parser) complete() error {
	if n := p.last; n != nil && n.covered() != n.attr.Size {
		return fmt.Errorf("the chunks of the file before end at %d of %d", n.covered(), n.attr.Size)
	}
	return nil
}

func (p *parser) finish(end int64) error {
	for _, n := range p.pending {
		n.end(end)
	}
	return p.complete()
}

func (n *node) covered() int64 {
	if len(n.chunks) == 0 {
		return 0
	}
	c := n.chunks[len(n.chunks)-1]
	return c.Off + c.Size
}

func (n *node) end(at int64) {
	for i := range n.chunks {
		if n.chunks[i].Next == 0 {
			n.chunks[i].Next = at
		}
	}
}

func (p *parser) new(attr metadata.Attr) uint32 {
	id := p.next
	p.next++
	p.nodes[id] = &node{attr: attr}
	return id
}

func (p *parser) find(name string) (uint32, error) {
	id := uint32(rootID)
	if name == "" {
		return id, nil
	}
	for _, part := range strings.Split(name, "/") {
		next, ok := p.nodes[id].children[part]
		if !ok {
			return 0, os.ErrNotExist
		}
		id = next
	}
	return id, nil
}

// link puts id into its parent, making the parents that are missing.
func (p *parser) link(name string, id uint32) error {
	if name == "" {
		return errors.New("an entry without a name")
	}
	parts := strings.Split(name, "/")
	at := uint32(rootID)
	for _, part := range parts[:len(parts)-1] {
		next, ok := p.nodes[at].children[part]
		if !ok {
			next = p.new(metadata.Attr{Mode: os.ModeDir | 0o755, NumLink: 2})
			p.put(at, part, next)
		}
		at = next
	}
	base := parts[len(parts)-1]
	if _, ok := p.nodes[at].children[base]; ok {
		return errors.New("named twice")
	}
	p.put(at, base, id)
	return nil
}

func (p *parser) put(parent uint32, base string, id uint32) {
	n := p.nodes[parent]
	if n.children == nil {
		n.children = map[string]uint32{}
	}
	n.children[base] = id
	if p.nodes[id].attr.Mode.IsDir() {
		n.attr.NumLink++
	}
}

func attrOf(e *estargz.TOCEntry) metadata.Attr {
	mtime, _ := time.Parse(time.RFC3339, e.ModTime3339)
	links := 1
	if e.Type == "dir" {
		links = 2
	}
	return metadata.Attr{
		Size: e.Size, ModTime: mtime, LinkName: e.LinkName, Mode: e.Stat().Mode(), UID: e.UID, GID: e.GID,
		DevMajor: e.DevMajor, DevMinor: e.DevMinor, Xattrs: e.Xattrs, NumLink: links,
	}
}

func key(id uint32) []byte { return binary.BigEndian.AppendUint32(nil, id) }

func memberKey(at int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(at)) }

func (r *Reader) save(nodes map[uint32]*node) error {
	return r.db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket(r.key)
		if err != nil {
			return err
		}
		var buckets [4]*bolt.Bucket
		for i, name := range [][]byte{bucketAttrs, bucketChildren, bucketChunks, bucketMembers} {
			if buckets[i], err = b.CreateBucket(name); err != nil {
				return err
			}
		}
		members := map[int64][]shared{}
		for id, n := range nodes {
			for _, c := range n.chunks {
				members[c.Member] = append(members[c.Member], shared{id, c})
			}
			for i, v := range []any{n.attr, n.children, n.chunks} {
				var buf bytes.Buffer
				if err := json.NewEncoder(&buf).Encode(v); err != nil {
					return err
				}
				if err := buckets[i].Put(key(id), buf.Bytes()); err != nil {
					return err
				}
			}
		}
		for at, chunks := range members {
			if len(chunks) == 1 {
				continue
			}
			sort.Slice(chunks, func(i, j int) bool { return chunks[i].Inner < chunks[j].Inner })
			raw, err := json.Marshal(chunks)
			if err != nil {
				return err
			}
			if err := buckets[3].Put(memberKey(at), raw); err != nil {
				return err
			}
		}
		return nil
	})
}
