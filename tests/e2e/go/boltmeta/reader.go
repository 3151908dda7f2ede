package boltmeta

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"

	"github.com/containerd/stargz-snapshotter/metadata"
	digest "github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// Reader answers for one layer from the database.
type Reader struct {
	db    *bolt.DB
	key   []byte
	sr    *io.SectionReader
	d     metadata.Decompressor
	toc   digest.Digest
	count int
}

func (r *Reader) RootID() uint32           { return rootID }
func (r *Reader) TOCDigest() digest.Digest { return r.toc }
func (r *Reader) NumOfNodes() (int, error) { return r.count, nil }
func (r *Reader) Close() error {
	return r.db.Update(func(tx *bolt.Tx) error {
		if tx.Bucket(r.key) == nil {
			return nil
		}
		return tx.DeleteBucket(r.key)
	})
}

// Clone reads payloads from another reader of the same blob.
func (r *Reader) Clone(sr *io.SectionReader) (metadata.Reader, error) {
	c := *r
	c.sr = sr
	return &c, nil
}

func (r *Reader) load(bucket []byte, id uint32, v any) error {
	return r.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(r.key)
		if b == nil {
			return fmt.Errorf("the layer %s is closed", r.toc)
		}
		raw := b.Bucket(bucket).Get(key(id))
		if raw == nil {
			return fmt.Errorf("node %d: %w", id, os.ErrNotExist)
		}
		return json.Unmarshal(raw, v)
	})
}

func (r *Reader) GetOffset(id uint32) (int64, error) {
	var chunks []chunk
	if err := r.load(bucketChunks, id, &chunks); err != nil || len(chunks) == 0 {
		return 0, err
	}
	return chunks[0].Member, nil
}

func (r *Reader) GetAttr(id uint32) (attr metadata.Attr, err error) {
	err = r.load(bucketAttrs, id, &attr)
	return attr, err
}

func (r *Reader) GetChild(pid uint32, base string) (uint32, metadata.Attr, error) {
	var children map[string]uint32
	if err := r.load(bucketChildren, pid, &children); err != nil {
		return 0, metadata.Attr{}, err
	}
	id, ok := children[base]
	if !ok {
		return 0, metadata.Attr{}, fmt.Errorf("%q: %w", base, os.ErrNotExist)
	}
	attr, err := r.GetAttr(id)
	return id, attr, err
}

func (r *Reader) ForeachChild(id uint32, f func(string, uint32, os.FileMode) bool) error {
	var children map[string]uint32
	if err := r.load(bucketChildren, id, &children); err != nil {
		return err
	}
	names := make([]string, 0, len(children))
	for name := range children {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		attr, err := r.GetAttr(children[name])
		if err != nil {
			return err
		}
		if !f(name, children[name], attr.Mode) {
			return nil
		}
	}
	return nil
}

func (r *Reader) OpenFile(id uint32) (metadata.File, error) {
	attr, err := r.GetAttr(id)
	if err != nil {
		return nil, err
	}
	if !attr.Mode.IsRegular() {
		return nil, fmt.Errorf("node %d is no regular file", id)
	}
	f := &file{r: r, id: id, size: attr.Size}
	return f, r.load(bucketChunks, id, &f.chunks)
}

type preRead = func(id uint32, chunkOffset, chunkSize int64, chunkDigest string, r io.Reader) error

// OpenFileWithPreReader hands over the other chunks of a member whenever one is read.
func (r *Reader) OpenFileWithPreReader(id uint32, pre preRead) (metadata.File, error) {
	f, err := r.OpenFile(id)
	if err != nil {
		return nil, err
	}
	f.(*file).pre = pre
	return f, nil
}

type file struct {
	r      *Reader
	id     uint32
	size   int64
	chunks []chunk
	pre    preRead
}

func (f *file) find(off int64) (chunk, bool) {
	i := sort.Search(len(f.chunks), func(i int) bool { return f.chunks[i].Off+f.chunks[i].Size > off })
	if off < 0 || i == len(f.chunks) {
		return chunk{}, false
	}
	return f.chunks[i], true
}

func (f *file) ChunkEntryForOffset(off int64) (int64, int64, string, bool) {
	c, ok := f.find(off)
	return c.Off, c.Size, c.Digest, ok
}

func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		c, ok := f.find(off + int64(n))
		if !ok {
			return n, io.EOF
		}
		want := p[n:]
		skip := off + int64(n) - c.Off
		if left := c.Size - skip; int64(len(want)) > left {
			want = want[:left]
		}
		if err := f.readChunk(c, skip, want); err != nil {
			return n, err
		}
		n += len(want)
	}
	return n, nil
}

func (f *file) readChunk(c chunk, skip int64, p []byte) error {
	zr, err := f.r.d.Reader(io.NewSectionReader(f.r.sr, c.Member, c.Next-c.Member))
	if err != nil {
		return err
	}
	defer zr.Close()
	at := int64(0)
	if f.pre != nil {
		others, err := f.r.member(c.Member)
		if err != nil {
			return err
		}
		for _, o := range others {
			if _, err := io.CopyN(io.Discard, zr, o.Inner-at); err != nil {
				return err
			}
			at = o.Inner + o.Size
			content := io.LimitReader(zr, o.Size)
			if o.ID == f.id && o.Off == c.Off {
				err = readAt(content, skip, p)
			} else {
				err = f.pre(o.ID, o.Off, o.Size, o.Digest, content)
			}
			if err != nil {
				return err
			}
			if _, err := io.Copy(io.Discard, content); err != nil {
				return err
			}
		}
		if len(others) > 0 {
			return nil
		}
	}
	return readAt(zr, c.Inner+skip, p)
}

func readAt(r io.Reader, skip int64, p []byte) error {
	if _, err := io.CopyN(io.Discard, r, skip); err != nil {
		return err
	}
	_, err := io.ReadFull(r, p)
	return err
}

// member gives the chunks of a gzip member, none if it holds only one.
func (r *Reader) member(at int64) (chunks []shared, err error) {
	err = r.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket(r.key)
		if b == nil {
			return fmt.Errorf("the layer %s is closed", r.toc)
		}
		if raw := b.Bucket(bucketMembers).Get(memberKey(at)); raw != nil {
			return json.Unmarshal(raw, &chunks)
		}
		return nil
	})
	return chunks, err
}
