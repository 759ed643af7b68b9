package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// A cluster lives for hours; a month leaves room for a machine that sleeps.
const validity = 30 * 24 * time.Hour

// pkiRequest is what `pki DIR` reads from its standard input.
type pkiRequest struct {
	// SigningKeys are key pairs without a certificate: NAME.key and NAME.pub.
	SigningKeys []string `json:"signingKeys"`
	// Leaves are certificates signed by DIR/ca.crt, which is made if it is not there yet.
	Leaves []leaf `json:"leaves"`
}

type leaf struct {
	Name          string   `json:"name"`
	CommonName    string   `json:"commonName"`
	Organizations []string `json:"organizations"`
	Addresses     []net.IP `json:"addresses"`
	DNSNames      []string `json:"dnsNames"`
	// Server says whether the certificate may serve as well as call.
	Server bool `json:"server"`
}

// runPKI makes all the keys and certificates of a cluster in one go: dozens of openssl processes would take seconds.
func runPKI() int {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: pki DIR < request.json")
		return 2
	}
	var request pkiRequest
	if err := json.NewDecoder(os.Stdin).Decode(&request); err != nil {
		fmt.Fprintln(os.Stderr, "pki: the request on standard input is not valid:", err)
		return 2
	}
	if err := fulfil(request, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "pki:", err)
		return 1
	}
	return 0
}

func fulfil(request pkiRequest, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range request.SigningKeys {
		key, err := newKey(dir, name)
		if err != nil {
			return err
		}
		public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
		if err != nil {
			return err
		}
		if err := writePEM(filepath.Join(dir, name+".pub"), "PUBLIC KEY", public, 0o644); err != nil {
			return err
		}
	}
	authority, authorityKey, err := loadOrMakeAuthority(dir)
	if err != nil {
		return err
	}
	for _, wanted := range request.Leaves {
		key, err := newKey(dir, wanted.Name)
		if err != nil {
			return err
		}
		usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if wanted.Server {
			usages = append(usages, x509.ExtKeyUsageServerAuth)
		}
		template := &x509.Certificate{
			Subject:     pkix.Name{CommonName: wanted.CommonName, Organization: wanted.Organizations},
			IPAddresses: wanted.Addresses,
			DNSNames:    wanted.DNSNames,
			KeyUsage:    x509.KeyUsageDigitalSignature,
			ExtKeyUsage: usages,
		}
		if err := sign(dir, wanted.Name, template, authority, key, authorityKey); err != nil {
			return err
		}
	}
	return nil
}

func loadOrMakeAuthority(dir string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certificatePath, keyPath := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	if _, err := os.Stat(certificatePath); errors.Is(err, fs.ErrNotExist) {
		key, err := newKey(dir, "ca")
		if err != nil {
			return nil, nil, err
		}
		template := &x509.Certificate{
			Subject:               pkix.Name{CommonName: "local-cluster"},
			IsCA:                  true,
			BasicConstraintsValid: true,
			KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		}
		if err := sign(dir, "ca", template, template, key, key); err != nil {
			return nil, nil, err
		}
	}
	certificateDER, err := readPEM(certificatePath)
	if err != nil {
		return nil, nil, err
	}
	certificate, err := x509.ParseCertificate(certificateDER)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", certificatePath, err)
	}
	keyDER, err := readPEM(keyPath)
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParseECPrivateKey(keyDER)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", keyPath, err)
	}
	return certificate, key, nil
}

func sign(dir, name string, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().Add(validity)
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return fmt.Errorf("certificate %s: %w", name, err)
	}
	return writePEM(filepath.Join(dir, name+".crt"), "CERTIFICATE", der, 0o644)
}

func newKey(dir, name string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writePEM(filepath.Join(dir, name+".key"), "EC PRIVATE KEY", der, 0o600)
}

func writePEM(path, kind string, der []byte, mode os.FileMode) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode)
}

func readPEM(path string) ([]byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM block", path)
	}
	return block.Bytes, nil
}
