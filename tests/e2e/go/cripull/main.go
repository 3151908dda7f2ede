// Command cripull pulls an image as kubelet does: by the CRI image service of a socket.
package main

import (
	"context"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: cripull SOCKET IMAGE")
	}
	connection, err := grpc.NewClient("unix://"+os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	image := &runtime.ImageSpec{Image: os.Args[2]}
	answer, err := runtime.NewImageServiceClient(connection).PullImage(ctx, &runtime.PullImageRequest{Image: image})
	if err != nil {
		log.Fatal(err)
	}
	log.Print(answer.ImageRef)
}
