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
	"regexp"
	"strconv"
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
		Spec struct {
			Containers []struct {
				Ports []struct {
					Name          string
					ContainerPort int
				}
			}
		}
		Status struct{ PodIP, Phase string }
	}
}

var unnameable = regexp.MustCompile(`[^a-zA-Z0-9_]`)

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
		if pod.Status.PodIP == "" {
			continue
		}
		for _, container := range pod.Spec.Containers {
			for _, port := range container.Ports {
				number := strconv.Itoa(port.ContainerPort)
				labels := map[string]string{
					"__meta_kubernetes_namespace":               pod.Metadata.Namespace,
					"__meta_kubernetes_pod_name":                pod.Metadata.Name,
					"__meta_kubernetes_pod_phase":               pod.Status.Phase,
					"__meta_kubernetes_pod_container_port_name": port.Name,
				}
				for name, value := range pod.Metadata.Labels {
					labels["__meta_kubernetes_pod_label_"+unnameable.ReplaceAllString(name, "_")] = value
				}
				targets = append(targets, target{[]string{pod.Status.PodIP + ":" + number}, labels})
			}
		}
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
