# Signs CERT, whose key is KEY, again with CA.crt and CA.key: the same in everything but its time,
# which is over.
set -eu
cert=$1 key=$2 ca=$3
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
: >"$work/index"
cat >"$work/config" <<END
[ca]
default_ca = one
[one]
database = $work/index
new_certs_dir = $work
default_md = sha256
policy = any
copy_extensions = copyall
unique_subject = no
rand_serial = yes
[any]
commonName = optional
organizationName = optional
END
openssl x509 -x509toreq -copy_extensions copyall -in "$cert" -signkey "$key" -out "$work/request" 2>/dev/null
begin=$(date -u -d '13 months ago' +%Y%m%d%H%M%SZ) end=$(date -u -d '1 month ago' +%Y%m%d%H%M%SZ)
openssl ca -batch -notext -preserveDN -config "$work/config" -cert "$ca.crt" -keyfile "$ca.key" \
    -startdate "$begin" -enddate "$end" -in "$work/request" -out "$work/new" 2>/dev/null
cat "$work/new"
