#!/bin/sh
# Runs a command with a private PostgreSQL server: with_pg.sh COMMAND…
# KB_TEST_TARGET is its connection string; KB_TEST_PGDATA and KB_TEST_PGBIN are for tests that crash it. The server and its
# files are gone afterwards. KB_TEST_PORT picks the port.
set -eu
bin=${KB_TEST_PGBIN:-/usr/lib/postgresql/15/bin}
port=${KB_TEST_PORT:-22100}
dir=$(mktemp -d "${TMPDIR:-/tmp}/keybridge-pg.XXXXXX")
chmod 755 "$dir"
as() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
if [ "$(id -u)" = 0 ]; then chown postgres "$dir"; fi
stop() { as "$bin/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1 || true; rm -rf "$dir"; }
trap stop EXIT
trap 'exit 130' INT TERM
as "$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 -N >/dev/null
cat >>"$dir/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
port = $port
wal_level = logical
max_connections = 40
shared_buffers = 128MB
max_wal_size = 4GB
log_min_messages = warning
# So that a crash loses what was committed and not waited for.
wal_writer_delay = 10s
wal_writer_flush_after = 1GB
${KB_TEST_PGCONF:-}
CONF
as "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w start >/dev/null || { cat "$dir/log" >&2; exit 1; }
KB_TEST_TARGET="host=127.0.0.1 port=$port user=postgres dbname=postgres"
KB_TEST_PGDATA=$dir/data KB_TEST_PGBIN=$bin
export KB_TEST_TARGET KB_TEST_PGDATA KB_TEST_PGBIN
"$@"
