# What a poll, a 304 at the gate and a delivery cost, in instructions counted
# by callgrind: within 3% of what t/instructions.txt says for this nginx and
# this compiler.  What nginx and the module execute is told apart; libc and the
# like only has to be about the same.  RT_INSTRUCTIONS=write, as in "make
# instructions", puts what was counted into the file.
#
# One process under valgrind runs all of it.  A request of the status begins a
# new count, for callgrind dumps the old one before it.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use IO::Socket::INET;
use POSIX ();

plan(skip_all => 'would count what a sanitizer does') if asan();
need('valgrind');

my $requests = 1000;
my $messages = 60;
my @clients = (5, 25);
my $tolerance = 0.03;
my $roughly = 0.3;

my $file = "$FindBin::Bin/instructions.txt";
my $port = free_port();
my $out = dir() . '/callgrind';
my $prefix = dir() . '/nginx';
mkdir $_ or die "$_: $!\n" for $prefix, "$prefix/logs", "$prefix/html";
RT::spew("$prefix/html/small.txt", "the application's\n");

my $temp = join "\n", map { "${_}_temp_path $prefix/$_;" }
    qw(client_body proxy fastcgi uwsgi scgi);
my $load = RT::Nginx::module() ne ''
    ? 'load_module ' . RT::Nginx::module() . ';' : '';
my $user = $> == 0 ? 'user root;' : '';
RT::spew("$prefix/nginx.conf", <<"END");
$load
$user
daemon off;
master_process off;
pid $prefix/nginx.pid;
error_log $prefix/logs/error.log warn;
events { worker_connections 256; }
http {
    access_log off;
    root $prefix/html;
    $temp
    keepalive_requests 1000000;
    keepalive_timeout 1h;
    rt_hub app { zone 8m; }
    server {
        listen 127.0.0.1:$port;
        rt_heartbeat 1h;
        location = /mark { rt_status json; }
        location = /204 { return 204; }
        location = /publish { rt_publish app \$arg_channel; }
        location ~ ^/rt/(?<channel>[\\w:.-]+)\$ { rt_subscribe app \$channel; }
        location ~ ^/gate/(?<channel>[\\w:.-]+)\$ {
            rt_gate app \$channel;
            rewrite ^ /small.txt break;
        }
    }
}
END

my $pid = RT::spawn([qw(valgrind --tool=callgrind
    --dump-before=ngx_http_rt_status_handler), "--callgrind-out-file=$out",
    RT::Nginx::binary(), '-p', $prefix, '-c', "$prefix/nginx.conf",
    '-e', "$prefix/logs/error.log"], out => dir() . '/log');


# the client

sub connection {
    return RT::poll_until(sub {
        die slurp(dir() . '/log') if !RT::running($pid);
        return IO::Socket::INET->new(PeerAddr => "127.0.0.1:$port");
    }, 30) // die "nginx does not listen\n";
}

my %unread;

# reads until COND gives a length, takes that
sub until_there ($conn, $cond) {
    my $buf = \($unread{$conn} //= '');
    local $SIG{ALRM} = sub { die "waits after: $$buf\n" };
    alarm RT::scale(30);
    my $len;
    until (defined($len = $cond->($$buf))) {
        sysread $conn, $$buf, 65536, length $$buf or die "closed: $$buf\n";
    }
    alarm 0;
    return substr $$buf, 0, $len, '';
}

sub up_to ($conn, $pattern) {
    return until_there($conn, sub ($buf) {
        return $buf =~ $pattern ? $+[0] : undef });
}

sub ask ($conn, $request, $status) {
    syswrite $conn, $request;
    my $head = up_to($conn, qr/\r\n\r\n/);
    die "not $status: $head\n" if $head !~ m{^HTTP/1\.1 $status };
    my ($len) = $head =~ /^Content-Length: (\d+)/mi;
    until_there($conn, sub ($buf) { length $buf >= $len ? $len : undef })
        if $len;
    return $head;
}

sub req ($path, @headers) {
    return join "\r\n", "GET $path HTTP/1.1", 'Host: localhost',
        "User-Agent: t/87", 'Accept: */*', @headers, '', '';
}

sub publish ($data) {
    return join "\r\n", 'POST /publish?channel=orders:42 HTTP/1.1',
        'Host: localhost', 'Content-Length: ' . length $data, '', $data;
}


# what is counted

my $conn = connection();
my $dumps = 0;

# the dump of what SUB does
sub counted ($sub) {
    my $mark = req('/mark');
    ask($conn, $mark, 200);
    $sub->();
    ask($conn, $mark, 200);
    $dumps += 2;
    return RT::poll_until(sub { -s "$out.$dumps" && "$out.$dumps" }, 10)
        // die "no dump $dumps: has the module no symbols?\n";
}

my %dump = (nothing => counted(sub {}));

sub requests ($name, $request, $status) {
    ask($conn, $request, $status) for 1 .. 10;
    $dump{$name} = counted(sub { ask($conn, $request, $status)
        for 1 .. $requests });
}

sub etag ($path) {
    return ask($conn, req($path), 200) =~ /^ETag: (\S+)\r$/m ? $1
        : die "no ETag\n";
}

ask($conn, publish('x' x 200), 202);
requests('return 204', req('/204'), 204);
requests('poll 304', req('/rt/orders:42', 'If-None-Match: '
    . etag('/rt/orders:42')), 304);
requests('poll 200', req('/rt/orders:42'), 200);
requests('gate 304', req('/gate/orders:42', 'If-None-Match: '
    . etag('/gate/orders:42')), 304);

my @streams;
for my $n (@clients) {
    while (@streams < $n) {
        push @streams, connection();
        syswrite $streams[-1], req('/rt/orders:42',
                                   'Accept: text/event-stream');
        up_to($streams[-1], qr/\ndata: [^\n]+\n/);
    }
    my $round = sub ($i) {
        ask($conn, publish("message $n $i " . 'x' x 180), 202);
        up_to($_, qr/\ndata: message $n $i x+\n/) for @streams;
    };
    $round->("before $_") for 1 .. 5;
    $dump{"$n clients"} = counted(sub { $round->($_) for 1 .. $messages });
}

kill TERM => $pid;
ok(RT::poll_until(sub { !RT::running($pid) }, 30), 'nginx ends');
is(slurp("$prefix/logs/error.log"), '', 'and had nothing to say');


# Callgrind's own format: lines of a function are its own cost, but for the
# one behind "calls=", which is that of what is called.

sub costs ($file) {
    my (%object, $ob, $called);
    my %cost = (nginx => 0, module => 0, other => 0);
    for (split /\n/, slurp($file)) {
        if (my ($of_call, $id, $path) = /^(c?)ob=\((\d+)\)(?: (.*))?/) {
            $object{$id} = $path =~ m{/ngx_http_rt_module\.so$} ? 'module'
                : $path =~ m{/nginx$} ? 'nginx' : 'other' if defined $path;
            $ob = $object{$id} if !$of_call;
        }
        elsif (/^calls=/) {
            $called = 1;
        }
        elsif (/^[-+*\d]\S* (\d+)/) {
            $cost{$ob} += $1 if !$called;
            $called = 0;
        }
    }
    return \%cost;
}

my $nothing = costs($dump{nothing});

sub per ($n, $more, $less) {
    return { map { $_ => sprintf '%.0f', ($more->{$_} - $less->{$_}) / $n }
        keys %$more };
}

my @names = ('return 204', 'poll 304', 'poll 200', 'gate 304');
my %is = map { $_ => per($requests, costs($dump{$_}), $nothing) } @names;
push @names, 'delivery';
$is{delivery} = per($messages * ($clients[1] - $clients[0]),
    map { costs($dump{"$_ clients"}) } reverse @clients);
cmp_ok($is{'return 204'}{nginx}, '>', 1000, 'something was counted');


# the figures: whose they are, and what they are

sub checksum ($text) { return sprintf '%08x', unpack '%32N*', $text . "\0" x 4 }

sub whose {
    my $binary = RT::Nginx::binary();
    my ($version, $built) = `$binary -V 2>&1`
        =~ m{nginx/(\S+).*?^(?:built by .*?)?(configure arguments: .*)}ms;
    my ($compiler) = slurp(RT::Nginx::module() || $binary)
        =~ /(GCC: \([^)]*\) [\d.]+|clang version [\d.]+)/;
    return sprintf 'nginx %s (%s), %s, %s', $version, checksum($built),
        (POSIX::uname())[4], ($compiler // '?') =~ s/: \([^)]*\)//r;
}

sub libc { return (`getconf GNU_LIBC_VERSION 2> /dev/null` || "?\n") =~ s/\n//r }

my $whose = whose();
my @blocks = split /^(?=nginx )/m, slurp($file);
my $comment = @blocks && $blocks[0] !~ /^nginx / ? shift @blocks : '';
my ($block) = grep { (split /\n/)[0] eq $whose } @blocks;

sub line ($name) {
    return sprintf "    %-12s%8d%8d%8d\n", $name,
        @{$is{$name}}{qw(module nginx other)};
}

if (($ENV{RT_INSTRUCTIONS} // '') eq 'write') {
    @blocks = grep { (split /\n/)[0] ne $whose } @blocks;
    my $new = "$whose\n" . join '', map { line($_) } @names;
    $new .= '    other: ' . libc() . "\n";
    RT::spew($file, $comment . join '', sort @blocks, $new);
    diag("$file:\n$new");
    $block = $new;
}

note(sprintf '%-16s%8s%8s%8s', $whose, qw(module nginx other));
note(line($_)) for @names;

# of next to nothing a part is nothing
sub near ($is, $was, $within) {
    my $most = $within * abs $was;
    return abs($is - $was) <= ($most > 8 ? $most : 8);
}

if (!defined $block) {
    diag("no figures for $whose: make instructions");
    pass('nothing to compare with');
}
else {
    my ($other) = $block =~ /other: (.*)/;
    for my $name (@names) {
        my %was;
        @was{qw(module nginx other)} =
            $block =~ /^    \Q$name\E\s+(-?\d+)\s+(-?\d+)\s+(-?\d+)$/m
            or fail("$name: no figure"), next;
        for my $of (qw(module nginx)) {
            next if $name eq 'return 204' && $of eq 'module';
            ok(near($is{$name}{$of}, $was{$of}, $tolerance),
                "$name: $of") or diag("$name: $is{$name}{$of} instructions "
                . "of $of, $was{$of} before: if that is right, "
                . 'make instructions');
        }
        if (libc() eq $other) {
            ok(near($is{$name}{other}, $was{other}, $roughly),
                "$name: libc and others") or diag("$name: "
                . "$is{$name}{other} instead of $was{other}");
        }
    }
}

done_testing;
