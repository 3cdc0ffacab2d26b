// Command discovery tells Prometheus which pods there are, by its HTTP service discovery: Debian's Prometheus is built without the Kubernetes one.
// It names targets and labels as that one does, as far as they are used here.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"time"
)

const (
	account = "/var/run/secrets/kubernetes.io/serviceaccount/"
	pods    = "https://kubernetes.default.svc/api/v1/pods?labelSelector=app.kubernetes.io/name%3Dcharalora"
)

type podList struct {
	Items []struct {
		Metadata struct {
			Name, Namespace string
			Labels          map[string]string
		}
		Status struct{ PodIP, Phase string }
	}
}

type target struct {
	Targets []string          `json:"targets"`
	Labels  map[string]string `json:"labels"`
}

func list(client *http.Client) ([]target, error) {
	token, err := os.ReadFile(account + "token")
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequest(http.MethodGet, pods, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var found podList
	if err := json.NewDecoder(answer.Body).Decode(&found); err != nil {
		return nil, err
	}
	targets := []target{}
	for _, pod := range found.Items {
		if pod.Status.PodIP == "" || pod.Status.Phase != "Running" {
			continue
		}
		port := "8080"
		switch pod.Metadata.Labels["app.kubernetes.io/component"] {
		case "preflight":
			continue
		case "training":
			port = "9400"
		}
		targets = append(targets, target{[]string{pod.Status.PodIP + ":" + port}, map[string]string{
			"namespace": pod.Metadata.Namespace,
			"pod":       pod.Metadata.Name,
			"charalora": pod.Metadata.Labels["charalora.dev/resource"],
		}})
	}
	return targets, nil
}

func main() {
	authority, err := os.ReadFile(account + "ca.crt")
	if err != nil {
		log.Fatal(err)
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(authority)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: trusted}}}
	http.HandleFunc("/targets", func(answer http.ResponseWriter, _ *http.Request) {
		targets, err := list(client)
		if err != nil {
			http.Error(answer, err.Error(), http.StatusBadGateway)
			return
		}
		answer.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(answer).Encode(targets); err != nil {
			log.Print(err)
		}
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:9099", nil))
}
