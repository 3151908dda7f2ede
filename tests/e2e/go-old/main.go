// Command snapshotter-old is what go/snapshotter is, over stargz-snapshotter 0.12.1, the release that Debian 12 has
// the client of.
//
// With -check-config it only says whether the release knows every setting of the file.
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	"github.com/BurntSushi/toml"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/contrib/snapshotservice"
	"github.com/containerd/stargz-snapshotter/service"
	"google.golang.org/grpc"
)

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
	var cfg service.Config
	read, err := toml.DecodeFile(configPath, &cfg)
	if err != nil {
		return err
	}
	if check {
		if unknown := read.Undecoded(); len(unknown) > 0 {
			return fmt.Errorf("unknown settings: %v", unknown)
		}
		return nil
	}
	log.Printf("config: %+v", cfg)
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	sn, err := service.NewStargzSnapshotterService(context.Background(), root, &cfg)
	if err != nil {
		return err
	}
	defer sn.Close()
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
