// SPDX-License-Identifier: Apache-2.0

// Command vcsim serves govmomi's vCenter simulator with its EAM endpoint, for the integration tests.
//
// Stock vcsim does not register /eam/sdk; this program does, and nothing else differs. It prints one JSON
// object with its address and certificate on standard output, and ends when standard input is closed, so
// that it never outlives the test run that started it.
package main

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"flag"
	"io"
	"log"
	"net/url"
	"os"

	_ "github.com/vmware/govmomi/eam/simulator"
	"github.com/vmware/govmomi/simulator"
)

func main() {
	model := simulator.VPX()
	flag.IntVar(&model.Datacenter, "dc", 1, "datacenters")
	flag.IntVar(&model.Cluster, "clusters", 2, "clusters per datacenter")
	flag.IntVar(&model.ClusterHost, "hosts", 3, "hosts per cluster")
	flag.IntVar(&model.Host, "standalone", 1, "standalone hosts per datacenter")
	flag.IntVar(&model.Machine, "vms", 2, "virtual machines per resource pool")
	user := flag.String("user", "administrator@vsphere.local", "the only login that is accepted")
	password := flag.String("password", "", "its password")
	flag.Parse()

	if err := model.Create(); err != nil {
		log.Fatal(err)
	}
	defer model.Remove()

	model.Service.TLS = new(tls.Config)
	model.Service.RegisterEndpoints = true
	model.Service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword(*user, *password)}
	server := model.Service.NewServer()
	defer server.Close()

	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	err := json.NewEncoder(os.Stdout).Encode(map[string]string{
		"host":        server.URL.Hostname(),
		"port":        server.URL.Port(),
		"certificate": string(certificate),
	})
	if err != nil {
		log.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}
