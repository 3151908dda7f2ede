// Command reader reads an eStargz layer as stargz-snapshotter does and prints it.
//
// It checks the footer and the TOC digest, then opens the blob through a metadata
// store, reads every chunk of every file through it and verifies the chunk's
// digest. One JSON line for each entry; the last line tells of the blob.
package main

import (
	"flag"
	"io"
	"log"
	"path/filepath"

	"github.com/containerd/stargz-snapshotter/metadata"
	"github.com/containerd/stargz-snapshotter/metadata/memory"
	digest "github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"starcar.test/e2e/boltmeta"
)

var stores = map[string]store{
	"memory": func(sr *io.SectionReader, _ string) (metadata.Reader, error) {
		return memory.NewReader(sr, zstd)
	},
	"boltmeta": func(sr *io.SectionReader, dir string) (metadata.Reader, error) {
		db, err := bolt.Open(filepath.Join(dir, "metadata.db"), 0o600, &bolt.Options{NoSync: true})
		if err != nil {
			return nil, err
		}
		return boltmeta.NewReader(db, sr, zstd)
	},
}

func main() {
	name := flag.String("store", "memory", "memory or boltmeta")
	toc := flag.String("toc-digest", "", "digest that the TOC must have")
	flag.Parse()
	open, ok := stores[*name]
	if !ok {
		log.Fatalf("store %q", *name)
	}
	log.SetPrefix(*name + ": ")
	if err := list(flag.Arg(0), open, digest.Digest(*toc)); err != nil {
		log.Fatal(err)
	}
}
