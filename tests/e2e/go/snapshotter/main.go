// Command snapshotter is a containerd-stargz-grpc over the newest stargz-snapshotter library.
//
// It reads the same config.toml. metadata_store is "memory" (the library's) or
// "db" (package boltmeta). It stops on SIGINT or SIGTERM and unmounts what it mounted.
// With -check-config it only says whether the library knows every setting of the file.
package main

import (
	"bytes"
	"context"
	"flag"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/v2/contrib/snapshotservice"
	stargzfs "github.com/containerd/stargz-snapshotter/fs"
	"github.com/containerd/stargz-snapshotter/metadata"
	"github.com/containerd/stargz-snapshotter/metadata/memory"
	"github.com/containerd/stargz-snapshotter/service"
	"github.com/pelletier/go-toml/v2"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/grpc"

	"starcar.test/e2e/boltmeta"
)

type config struct {
	service.Config
	MetadataStore string `toml:"metadata_store"`
}

func main() {
	address := flag.String("address", "", "unix socket to serve on")
	root := flag.String("root", "", "state directory")
	configPath := flag.String("config", "", "config.toml")
	check := flag.Bool("check-config", false, "only read the configuration; an unknown setting is an error")
	flag.Parse()
	if err := run(*address, *root, *configPath, *check); err != nil {
		log.Fatal(err)
	}
}

func run(address, root, configPath string, check bool) error {
	var cfg config
	// The defaults of containerd-stargz-grpc that are not zero.
	cfg.MetadataStore = "memory"
	cfg.DirectoryCacheConfig.Direct = true
	cfg.FuseConfig.MergeBufferSize = 419430400
	cfg.FuseConfig.MergeWorkerCount = 10
	raw, err := os.ReadFile(configPath)
	if err != nil {
		return err
	}
	if check {
		return toml.NewDecoder(bytes.NewReader(raw)).DisallowUnknownFields().Decode(&cfg)
	}
	if err := toml.Unmarshal(raw, &cfg); err != nil {
		return err
	}
	log.Printf("config: %+v", cfg)
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	store := metadata.Store(func(sr *io.SectionReader, opts ...metadata.Option) (metadata.Reader, error) {
		return memory.NewReader(sr, opts...)
	})
	if cfg.MetadataStore == "db" {
		db, err := bolt.Open(filepath.Join(root, "metadata.db"), 0o600, &bolt.Options{NoSync: true, NoFreelistSync: true})
		if err != nil {
			return err
		}
		defer db.Close()
		store = boltmeta.Store(db)
	}
	ctx := context.Background()
	sn, err := service.NewStargzSnapshotterService(ctx, root, &cfg.Config,
		service.WithFilesystemOptions(stargzfs.WithMetadataStore(store)))
	if err != nil {
		return err
	}
	defer sn.Close()
	// As containerd-stargz-grpc does: /run is empty after a boot.
	if err := os.MkdirAll(filepath.Dir(address), 0o700); err != nil {
		return err
	}
	l, err := net.Listen("unix", address)
	if err != nil {
		return err
	}
	rpc := grpc.NewServer()
	snapshotsapi.RegisterSnapshotsServer(rpc, snapshotservice.FromSnapshotter(sn))
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-stop
		rpc.Stop()
	}()
	return rpc.Serve(l)
}
