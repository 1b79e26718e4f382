"""The lab's certificate authority and the servers' certificates, made by openssl."""
import os
import secrets
import subprocess


def _openssl(*args, text=None):
    done = subprocess.run(["openssl", *args], input=text, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"openssl {args[0]}: {done.stderr}")


class Authority:
    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        self.bundle = os.path.join(folder, "ca.pem")
        self.key = os.path.join(folder, "ca.key")
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
                 "-subj", "/O=keybridge lab/CN=keybridge lab RDS root", "-addext", "basicConstraints=critical,CA:TRUE",
                 "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", self.key, "-out", self.bundle)
        os.chmod(self.bundle, 0o644)

    def issue(self, name, address):
        """(certificate, key) in PEM, for a name and an address."""
        base = os.path.join(self.folder, f"{name}-{address}")
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name[:60]}",
                 "-keyout", base + ".key", "-out", base + ".csr")
        with open(base + ".ext", "w") as f:
            f.write(f"subjectAltName=DNS:{name},IP:{address}\nextendedKeyUsage=serverAuth\n")
        _openssl("x509", "-req", "-in", base + ".csr", "-CA", self.bundle, "-CAkey", self.key, "-set_serial",
                 str(secrets.randbits(63)), "-days", "20", "-extfile", base + ".ext", "-out", base + ".crt")
        with open(base + ".crt", "rb") as crt, open(base + ".key", "rb") as key:
            pair = crt.read(), key.read()
        for end in (".key", ".csr", ".ext", ".crt"):
            os.unlink(base + end)
        return pair
