// Command reader-db reads an eStargz layer as the command reader does, through the
// bbolt metadata store of stargz-snapshotter itself.
//
// That store, containerd-stargz-grpc's metadata_store = "db", was package metadata/db
// of the root module up to v0.10.1 and has been in the cmd module since. One build
// cannot hold two versions of the root module, so this command has its own go.mod.
package main

import (
	"flag"
	"io"
	"log"
	"path/filepath"

	"github.com/containerd/stargz-snapshotter/metadata"
	"github.com/containerd/stargz-snapshotter/metadata/db"
	digest "github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

func open(sr *io.SectionReader, dir string) (metadata.Reader, error) {
	// The options are containerd-stargz-grpc's.
	b, err := bolt.Open(filepath.Join(dir, "metadata.db"), 0o600, &bolt.Options{
		NoFreelistSync:  true,
		InitialMmapSize: 64 << 20,
		FreelistType:    bolt.FreelistMapType,
	})
	if err != nil {
		return nil, err
	}
	return db.NewReader(b, sr, zstd)
}

func main() {
	name := flag.String("store", "db", "only db")
	toc := flag.String("toc-digest", "", "digest that the TOC must have")
	flag.Parse()
	if *name != "db" {
		log.Fatalf("store %q", *name)
	}
	log.SetPrefix("db: ")
	if err := list(flag.Arg(0), open, digest.Digest(*toc)); err != nil {
		log.Fatal(err)
	}
}
