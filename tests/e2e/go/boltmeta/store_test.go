package boltmeta

import (
	"io"
	"path/filepath"
	"testing"

	"github.com/containerd/stargz-snapshotter/metadata"
	"github.com/containerd/stargz-snapshotter/metadata/testutil"
	bolt "go.etcd.io/bbolt"
)

// The library's own tests of a metadata store.
func TestReader(t *testing.T) {
	db, err := bolt.Open(filepath.Join(t.TempDir(), "metadata.db"), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	runner := &testutil.TestRunner{
		TestingT: t,
		Runner: func(parent testutil.TestingT, name string, fn func(testutil.TestingT)) {
			parent.(*testing.T).Run(name, func(t *testing.T) { fn(t) })
		},
	}
	testutil.TestReader(runner, func(sr *io.SectionReader, opts ...metadata.Option) (testutil.TestableReader, error) {
		return NewReader(db, sr, opts...)
	})
}
