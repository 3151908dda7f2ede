// Command link is a network link of a given bandwidth and round-trip time.
//
// It joins the namespace that it is started in and the one named by -netns with
// a TUN device in each, both called -device, and carries packets between them:
// each direction sends -rate bits a second and takes half of -rtt, behind a queue
// that holds -queue of traffic and drops what comes on top. TCP sees a real path,
// handshakes, slow start and losses included; a delaying proxy would hide them.
// Packets are as large as the kernels' segmentation offload makes them, so that a
// gigabit costs few system calls; each counts as the Ethernet frames it stands for.
//
// "ready" on stdout says that both devices exist. Devices vanish with the process;
// when it is told to end it prints what went through.
package main

import (
	"encoding/binary"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	headerSize = 10 // of struct virtio_net_hdr
	bufferSize = headerSize + 1<<16
	// What Ethernet adds to an IP packet: preamble, header, checksum, gap.
	frameOverhead = 38
	// A packet may be this early, so that neighbours share a wake-up.
	slack = 500 * time.Microsecond
)

var buffers = sync.Pool{New: func() any { return make([]byte, bufferSize) }}

// direction is one half of the link.
type direction struct {
	rate    float64       // bits a second
	delay   time.Duration // of propagation
	queue   time.Duration // longest wait for the wire
	Packets atomic.Int64
	Bytes   atomic.Int64
	Dropped atomic.Int64
}

type packet struct {
	data []byte
	due  time.Time
}

// openTun makes a device in the namespace of the thread.
func openTun(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("/dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return nil, fmt.Errorf("TUNSETIFF %s: %w", name, err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4); err != nil {
		return nil, fmt.Errorf("TUNSETOFFLOAD %s: %w", name, err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// openTunIn makes a device in another namespace, on a thread that is thrown away afterwards.
func openTunIn(namespace, name string) (file *os.File, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		var ns *os.File
		if ns, err = os.Open(namespace); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			err = fmt.Errorf("setns %s: %w", namespace, err)
			return
		}
		file, err = openTun(name)
	}()
	<-done
	return file, err
}

// wireBytes is what a packet takes on an Ethernet after segmentation.
func wireBytes(data []byte) int {
	size := len(data) - headerSize
	headers := int(binary.LittleEndian.Uint16(data[2:]))
	segment := int(binary.LittleEndian.Uint16(data[4:]))
	if data[1] == 0 || segment == 0 || size <= headers {
		return size + frameOverhead
	}
	count := (size - headers + segment - 1) / segment
	return size - headers + count*(headers+frameOverhead)
}

// carry takes packets from one device to the other until the link ends.
func (d *direction) carry(from, to *os.File) {
	line := make(chan packet, 1<<16)
	go func() {
		for p := range line {
			if wait := time.Until(p.due); wait > slack {
				time.Sleep(wait)
			}
			if _, err := to.Write(p.data); err != nil {
				d.Dropped.Add(1) // the device is down, or its queue full
			}
			buffers.Put(p.data[:bufferSize])
		}
	}()
	free := time.Now() // when the wire has sent all before
	for {
		data := buffers.Get().([]byte)
		n, err := from.Read(data)
		if err != nil {
			log.Fatalf("%s: %v", from.Name(), err)
		}
		now := time.Now()
		if free.Before(now) {
			free = now
		}
		if free.Sub(now) > d.queue {
			d.Dropped.Add(1)
			buffers.Put(data)
			continue
		}
		bytes := wireBytes(data[:n])
		free = free.Add(time.Duration(float64(bytes) * 8 / d.rate * 1e9))
		d.Packets.Add(1)
		d.Bytes.Add(int64(bytes))
		line <- packet{data[:n], free.Add(d.delay)}
	}
}

func (d *direction) report() map[string]int64 {
	return map[string]int64{"packets": d.Packets.Load(), "bytes": d.Bytes.Load(), "dropped": d.Dropped.Load()}
}

func main() {
	namespace := flag.String("netns", "", "file of the other network namespace")
	device := flag.String("device", "scar0", "name of both devices")
	rate := flag.Float64("rate", 1e9, "bits a second in each direction")
	rtt := flag.Duration("rtt", 20*time.Millisecond, "round-trip time of an idle link")
	queue := flag.Duration("queue", 0, "traffic that the queue holds (default: rtt, 20ms at least)")
	flag.Parse()
	if *queue == 0 {
		*queue = max(*rtt, 20*time.Millisecond)
	}
	near, err := openTun(*device)
	if err != nil {
		log.Fatal(err)
	}
	far, err := openTunIn(*namespace, *device)
	if err != nil {
		log.Fatal(err)
	}
	out := &direction{rate: *rate, delay: *rtt / 2, queue: *queue}
	in := &direction{rate: *rate, delay: *rtt / 2, queue: *queue}
	go out.carry(near, far)
	go in.carry(far, near)
	fmt.Println("ready")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	<-stop
	json.NewEncoder(os.Stdout).Encode(map[string]any{"to_node": out.report(), "from_node": in.report()})
}
