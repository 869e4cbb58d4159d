#!/bin/bash

# Healthy: nginx answers for the module within the time that the health check
# gives.  A Redis that is away is no reason to restart nginx: it serves on and
# reconnects.

set -eu

exec 3<> "/dev/tcp/127.0.0.1/${PORT:-8080}"
printf 'GET /rt-status HTTP/1.0\r\nAccept: application/json\r\n\r\n' >&3
read -r _ status _ <&3
[ "$status" = 200 ]
