package main

// go-dbstore links to this file: it must compile with stargz-snapshotter v0.10.1 too.

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/containerd/stargz-snapshotter/metadata"
	digest "github.com/opencontainers/go-digest"
)

// A store opens the blob; what it needs on the disk lies in dir.
type store func(sr *io.SectionReader, dir string) (metadata.Reader, error)

type chunk struct {
	Offset int64 `json:"offset"` // in the file
	Size   int64 `json:"size"`
	Blob   int64 `json:"blob"` // where its member begins in the blob
	Next   int64 `json:"next"` // where the next member with data begins
}

type entry struct {
	Path   string  `json:"path"`
	Type   string  `json:"type"`
	Mode   uint32  `json:"mode"`
	UID    int     `json:"uid"`
	GID    int     `json:"gid"`
	Size   int64   `json:"size"`
	MTime  int64   `json:"mtime"`
	SHA256 string  `json:"sha256,omitempty"`
	Link   string  `json:"link,omitempty"`
	Links  int     `json:"links"`
	Chunks []chunk `json:"chunks,omitempty"`
}

type summary struct {
	TOCDigest    string `json:"tocDigest"`
	TOCOffset    int64  `json:"tocOffset"`
	FooterSize   int64  `json:"footerSize"`
	BlobSize     int64  `json:"blobSize"`
	Landmark     string `json:"landmark"`
	LandmarkAt   int64  `json:"landmarkAt"`
	LandmarkByte int    `json:"landmarkByte"`
}

type walker struct {
	blob *estargz.Reader
	md   metadata.Reader
	out  *json.Encoder
	sum  summary
	buf  []byte
}

// zstd is what the snapshotter gives its stores beside their own decompressors.
var zstd = metadata.WithDecompressors(new(zstdchunked.Decompressor))

// footer finds the TOC of an eStargz or a zstd:chunked layer.
func footer(sr *io.SectionReader) (tocOffset, size int64, err error) {
	if tocOffset, size, err = estargz.OpenFooter(sr); err == nil {
		return tocOffset, size, nil
	}
	var end [zstdchunked.FooterSize]byte
	if _, rerr := sr.ReadAt(end[:], sr.Size()-int64(len(end))); rerr != nil {
		return 0, 0, err
	}
	_, tocOffset, _, zerr := new(zstdchunked.Decompressor).ParseFooter(end[:])
	if zerr != nil {
		return 0, 0, errors.Join(err, zerr)
	}
	return tocOffset, int64(len(end)), nil
}

// list prints the entries of the layer in the file name, as the store tells them, and a summary.
func list(name string, open store, toc digest.Digest) (err error) {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	sr := io.NewSectionReader(f, 0, st.Size())
	tocOffset, footerSize, err := footer(sr)
	if err != nil {
		return fmt.Errorf("footer: %w", err)
	}
	blob, err := estargz.Open(sr, estargz.WithDecompressors(new(zstdchunked.Decompressor)))
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if _, err := blob.VerifyTOC(toc); err != nil {
		return fmt.Errorf("VerifyTOC: %w", err)
	}
	dir, err := os.MkdirTemp("", "reader")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	md, err := open(sr, dir)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	if got := md.TOCDigest(); got != toc {
		return fmt.Errorf("store: the TOC has the digest %s, not %s", got, toc)
	}
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	defer func() {
		if ferr := out.Flush(); err == nil {
			err = ferr
		}
	}()
	w := &walker{blob: blob, md: md, out: json.NewEncoder(out)}
	w.sum = summary{TOCDigest: string(md.TOCDigest()), TOCOffset: tocOffset, FooterSize: footerSize, BlobSize: st.Size()}
	if err := w.walk(md.RootID(), ""); err != nil {
		return err
	}
	return w.out.Encode(w.sum)
}

func (w *walker) walk(id uint32, name string) error {
	attr, err := w.md.GetAttr(id)
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	e := entry{
		Path: name, Type: kind(attr.Mode), Mode: perm(attr.Mode), UID: attr.UID, GID: attr.GID, Size: attr.Size,
		MTime: attr.ModTime.Unix(), Link: attr.LinkName, Links: attr.NumLink,
	}
	if e.Type == "reg" {
		if err := w.file(id, &e); err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
	}
	if name == "" && attr.ModTime.IsZero() {
		e.MTime = 0
	}
	if err := w.out.Encode(e); err != nil {
		return err
	}
	if e.Type != "dir" {
		return nil
	}
	type child struct {
		name string
		id   uint32
	}
	var children []child
	if err := w.md.ForeachChild(id, func(base string, id uint32, _ os.FileMode) bool {
		children = append(children, child{base, id})
		return true
	}); err != nil {
		return err
	}
	for _, c := range children {
		if err := w.walk(c.id, path.Join(name, c.name)); err != nil {
			return err
		}
	}
	return nil
}

// file reads every chunk through the store and verifies it.
func (w *walker) file(id uint32, e *entry) error {
	f, err := w.md.OpenFile(id)
	if err != nil {
		return err
	}
	all := sha256.New()
	for off := int64(0); off < e.Size; {
		at, size, want, ok := f.ChunkEntryForOffset(off)
		if !ok || at != off || size <= 0 {
			return fmt.Errorf("no chunk begins at %d (%d, %d, %v)", off, at, size, ok)
		}
		if int64(cap(w.buf)) < size {
			w.buf = make([]byte, size)
		}
		p := w.buf[:size]
		if n, err := f.ReadAt(p, off); int64(n) != size {
			return fmt.Errorf("chunk at %d: %d of %d bytes: %w", off, n, size, err)
		}
		if got := digest.FromBytes(p); string(got) != want {
			return fmt.Errorf("chunk at %d: the digest is %s, not %q", off, got, want)
		}
		all.Write(p)
		ent, ok := w.blob.ChunkEntryForOffset(e.Path, off)
		if !ok {
			return fmt.Errorf("estargz has no chunk at %d", off)
		}
		e.Chunks = append(e.Chunks, chunk{Offset: at, Size: size, Blob: ent.Offset, Next: ent.NextOffset()})
		off += size
	}
	e.SHA256 = hex.EncodeToString(all.Sum(nil))
	if e.Path == estargz.PrefetchLandmark || e.Path == estargz.NoPrefetchLandmark {
		if w.sum.Landmark != "" {
			return fmt.Errorf("a second landmark after %s", w.sum.Landmark)
		}
		w.sum.Landmark, w.sum.LandmarkByte = e.Path, int(w.buf[0])
		w.sum.LandmarkAt, err = w.md.GetOffset(id)
	}
	return err
}

func kind(m os.FileMode) string {
	switch m & os.ModeType {
	case 0:
		return "reg"
	case os.ModeDir:
		return "dir"
	case os.ModeSymlink:
		return "symlink"
	case os.ModeNamedPipe:
		return "fifo"
	case os.ModeDevice:
		return "block"
	case os.ModeDevice | os.ModeCharDevice:
		return "char"
	}
	return m.String()
}

func perm(m os.FileMode) uint32 {
	p := uint32(m.Perm())
	for _, b := range []struct {
		mode os.FileMode
		bit  uint32
	}{{os.ModeSetuid, 0o4000}, {os.ModeSetgid, 0o2000}, {os.ModeSticky, 0o1000}} {
		if m&b.mode != 0 {
			p |= b.bit
		}
	}
	return p
}
