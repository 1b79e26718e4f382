#!/bin/sh
# Prints every #include that goes against the layers of docs/architecture.md; fails when there is one.
set -eu

# folder: what it may include
rules='engine/base: engine/base
engine/model: engine/base engine/model
engine/conf: engine/base engine/conf
decoders: engine/base engine/model decoders
appliers: engine/base engine/model engine/conf appliers
aws: engine/base engine/model engine/conf aws
engine/stream: engine/base engine/model engine/conf decoders appliers engine/stream
engine/check: engine/base engine/model engine/conf appliers engine/stream engine/check
engine/move: engine/base engine/model engine/conf appliers aws engine/stream engine/check engine/move
engine/cmd: engine/base engine/model engine/conf appliers aws engine/stream engine/check engine/move engine/cmd'

# A decoder turns bytes into changes: no sockets, files, clocks, threads, logs, client libraries.
no_io='libpq-fe|mysql|curl/|sqlite3|openssl/|sys/|netinet/|arpa/|netdb|unistd|fcntl|poll|time\.h|signal|pthread|dirent'
no_io="$no_io|engine/base/(log|mono|queue|stop)\.h"

found=$(printf '%s\n' "$rules" | while IFS=: read -r folder allowed; do
    [ -d "$folder" ] || continue
    pattern=$(printf '%s' "$allowed" | sed 's/^ //; s/ /|/g')
    grep -rnE '^ *# *include +"' --include='*.[ch]' "$folder" | grep -vE "include +\"($pattern)/" |
        sed "s|\$|    <- $folder may include only:$allowed|" || true
done
grep -rnE "^ *# *include +[<\"]($no_io)" --include='*.[ch]' decoders | sed 's/$/    <- decoders do no I\/O/' || true)

[ -z "$found" ] || { printf '%s\n' "$found"; exit 1; }
