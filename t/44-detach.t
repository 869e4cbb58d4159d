# Which streams give their request back, and which keep it because another
# module still needs it.  The line in the access log tells: it is written when
# the request ends, at a stream's begin or at its end.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::MD5 qw(md5_base64);
use MIME::Base64 qw(encode_base64);
use RT;
use RT::Wire;

need(qw(curl openssl));

my $certs = dir();
system("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost "
    . "-keyout $certs/key -out $certs/cert 2>/dev/null") == 0
    or die "openssl\n";

my $built = `@{[RT::Nginx::binary()]} -V 2>&1`;
my $addition = $built =~ /with-http_addition_module/;
my $mirror = $built !~ /without-http_mirror_module/;

# what is in the location beside rt_subscribe
my %location = (
    plain    => '',
    nochunk  => 'chunked_transfer_encoding off;',
    auth     => 'auth_request /auth;',
    authfar  => 'auth_request /far;',
    realip   => 'set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;',
    basic    => 'auth_basic rt; auth_basic_user_file %%DIR%%/users;',
    header   => 'add_header X-Plain plain; expires 1h;',
    req      => 'limit_req zone=req burst=1000 nodelay;',
    if       => 'if ($arg_x) { add_header X-If yes; } if ($arg_no) { return
                404; }',
    nosub    => 'sub_filter x y;',          # of another type
    nogzip   => 'gzip on;',
    secure   => 'secure_link $arg_md5; secure_link_md5 "$uri secret";
                if ($secure_link = "") { return 403; }',
    nonodelay => 'tcp_nodelay off; tcp_nopush on; sendfile on;',
    cleanlog => 'access_log off; access_log %%DIR%%/logs/rt.log rt;',
    postpone => 'postpone_output 0;',

    conn     => 'limit_conn conn 2;',
    rate     => 'limit_rate 10m;',
    ratevar  => 'set $limit_rate 10m;',
    rateif   => 'limit_rate $arg_rate;',
    gzip     => 'gzip on; gzip_types text/event-stream; gzip_min_length 0;',
    sub      => 'sub_filter never-there y; sub_filter_types text/event-stream;',
    ssi      => 'ssi on; ssi_types text/event-stream;',
    trailer  => 'add_trailer X-End end;',
    off      => 'rt_detach off;',
    $addition ? (addition => 'add_after_body /after;
        addition_types text/event-stream;',
        noaddition => 'add_after_body /after;') : (),
    $mirror ? (mirror => 'mirror /mirror;') : (),
);

my $locations = join '', map { <<"END" } sort keys %location;
    location ~ ^/$_/(?<channel>\\w+)\$ {
        $location{$_} rt_subscribe mem \$channel;
    }
END
$locations .= <<'END';
    location = /auth { return 204; }
    location = /far { proxy_pass http://127.0.0.1:%%PORT%%/auth; }
    location = /after { return 200 "after all\n"; }
    location = /mirror { proxy_pass http://127.0.0.1:%%PORT%%/slow; }
    location = /slow { limit_rate 1; return 200 "0123456789"; }
    location ~ ^/rewrite/ { rewrite ^/rewrite/(.*)$ /plain/$1 last; }
    location ~ ^/named/(?<channel>\w+)$ { try_files /none @named; }
    location @named { rt_subscribe mem $channel; }
    location ~ ^/instead/ { return 404; error_page 404 =200 /plain/instead; }
    location ~ ^/gate/(?<channel>\w+)$ {
        rt_gate mem $channel; proxy_pass http://127.0.0.1:1;
        error_page 502 =200 @named;
    }
    location = /publish { rt_publish mem $arg_channel; }
    location = /status { rt_status json; }
END

my $http = <<'END';
    rt_hub mem { zone 8m; history 50; message_max 300k; }
    rt_drain 200ms;
    limit_req_zone $uri zone=req:1m rate=1000r/s;
    limit_conn_zone $uri zone=conn:1m;
    client_max_body_size 100m;
    log_format rt '$uri $rt_transport $status $rt_close $remote_addr';
    access_log %%DIR%%/logs/rt.log rt;
    server {
        listen 127.0.0.1:%%PORT1%% ssl;
        ssl_certificate %%CERTS%%/cert; ssl_certificate_key %%CERTS%%/key;
        %%L%%
    }
    server { listen 127.0.0.1:%%PORT2%% http2; %%L%% }
    server { listen 127.0.0.1:%%PORT3%%; rt_detach off; %%L%%
        location ~ ^/on/(?<channel>\w+)$ {
            rt_detach on; rt_subscribe mem $channel;
        }
        location ~ ^/nested/ {
            rt_detach on;
            location ~ ^/nested/(?<channel>\w+)$ { rt_subscribe mem $channel; }
        }
    }
    server { listen unix:%%DIR%%/sock; %%L%% }
END
$http =~ s{%%L%%}{$locations}g;

my $ngx = RT::Nginx->new(workers => 2, vars => { CERTS => $certs },
    http => $http, server => $locations);
RT::spew($ngx->dir . '/users', "joe:{PLAIN}secret\n");
my $log = $ngx->dir . '/logs/rt.log';

sub publish ($channel, $data) {
    my $r = post($ngx, "/publish?channel=$channel", $data);
    die 'publish: ' . $r->status if $r->status != 202;
}

sub lines ($like) { return grep { $_ =~ $like } split /\n/, slurp($log) }

my $big = join "\n", map { "$_ " . 'x' x 997 } 1 .. 200;
my $big_text = 'data: ' . $big =~ s/\n/\ndata: /gr . "\n\n";

my $n = 0;

# one stream from its begin to its end: WHAT is detached, or attached
sub stream ($what, $name, $path, %opt) {
    subtest "$name: $what" => sub {
        my $channel = 'c' . ++$n;
        my ($loc, $args) = split /\?/, $path;
        my $target = delete $opt{target} // $ngx;
        $opt{headers} = $opt{headers}->("/$loc/$channel")
            if ref $opt{headers} eq 'CODE';
        $args = $args // '';
        $args =~ s/%%MD5%%/md5_base64("\/$loc\/$channel secret")
            =~ tr{+\/=}{-_}dr/e;
        my $uri = delete $opt{uri} // "/$loc/$channel";
        $channel = delete $opt{channel} // $channel;
        my $addr = delete $opt{addr} // '127.0.0.1';
        my $decode = delete $opt{decode} // sub { return $_[0] };
        my $was = lines(qr/^\Q$uri\E /);
        my $w = RT::Wire->new($target, "/$loc/$channel?$args", %opt);
        wait_ok { $w->read(0.02); $decode->($w->body)
            =~ /\Aretry: \d+\n\nid: \S+\n\n/ } 5, 'a place';
        my $line = qr/^\Q$uri\E sse 200 detached \Q$addr\E$/;
        if ($what eq 'detached') {
            wait_ok { lines($line) > $was } 5,
                'the request has ended at once';
        }
        publish($channel, $_) for 'one', $big, "two\n\n";
        my $id = qr/id: \S+\n/;
        my $begin = qr/retry: \d+\n\n$id\n${id}data: one\n\n/;
        my $end = qr/data: two\ndata: \ndata: \n\n/;
        my $want = qr/\A$begin$id\Q$big_text\E$id$end\z/;
        wait_ok { $w->read(0.02); $decode->($w->body) =~ $want } 5,
            'all comes, and nothing else';
        $w->framed;
        is(scalar(lines(qr/^\Q$uri\E /)), $was + ($what eq 'detached'),
            'what the access log has of it') if $what ne 'detached';
        if ($what eq 'detached' && defined $w->header('Transfer-Encoding')) {
            my @chunks = $w->chunks;
            is(scalar(grep { !/\n\n\z/ } @chunks), 0,
                'each chunk ends with an event');
            like($chunks[-1], qr/\Aid: \S+\ndata: two\ndata: \ndata: \n\n\z/,
                'a message is one');
        }
        $w->close;
        if ($what ne 'detached') {
            wait_ok { lines(qr/^\Q$uri\E sse 200 client \Q$addr\E$/) } 5,
                'the request ends with the stream';
        }
        is(scalar(lines(qr/^\Q$uri\E /)), $was + 1, 'one line of the log');
    };
}

sub detached { unshift @_, 'detached'; goto &stream }
sub attached { unshift @_, 'attached'; goto &stream }

detached('plain', 'plain');
detached('HTTP/1.0', 'plain', version => '1.0');
detached('HTTP/1.0 with keep-alive', 'plain', version => '1.0',
    headers => [Connection => 'keep-alive']);
detached('HTTP/1.1 with close', 'plain', headers => [Connection => 'close']);
detached('without chunks', 'nochunk');
detached('TLS', 'plain', tls => 1, port => 1);
detached('TLS 1.2', 'plain', tls => 1, port => 1, tls_args => ['-tls1_2']);
detached('TLS without chunks', 'nochunk', tls => 1, port => 1);
detached('a Unix socket', 'plain', target => 'unix:' . $ngx->dir . '/sock',
    addr => 'unix:');
detached('large headers', 'plain',
    headers => [map { +"X-$_" => 'x' x 3000 } 1 .. 8]);
detached('TLS, large headers', 'plain', tls => 1, port => 1,
    headers => [map { +"X-$_" => 'x' x 3000 } 1 .. 8]);
detached('auth_request', 'auth');
detached('auth_request with an upstream', 'authfar');
detached('secure_link', 'secure?md5=%%MD5%%');
detached('realip', 'realip', headers => ['X-Real-IP' => '192.0.2.7'],
    addr => '192.0.2.7');
detached('realip, of nobody else', 'realip');
detached('auth_basic', 'basic', headers => [Authorization => 'Basic '
    . encode_base64('joe:secret', '')]);
detached('add_header, expires', 'header');
detached('limit_req', 'req');
attached('behind rt_gate, whose upstream is away', 'gate');
detached('if', 'if?x=1');
detached('sub_filter of another type', 'nosub');
detached('gzip of another type', 'nogzip',
    headers => ['Accept-Encoding' => 'gzip']);
detached('gzip, the client does not take it', 'gzip');
detached('TCP options', 'nonodelay');
detached('postpone_output 0', 'postpone');
detached('limit_rate that is none', 'rateif?rate=0');
detached('rewrite', 'rewrite', uri => '/plain/c' . ($n + 1));
detached('a named location', 'named');
detached('error_page', 'instead', uri => '/plain/instead',
    channel => 'instead');
detached('a body that has come', 'plain', body => 'x' x 1000);
detached('a body of chunks', 'plain',
    headers => ['Transfer-Encoding' => 'chunked'],
    after => "3\r\nabc\r\n0\r\n\r\n");
detached('another request behind it', 'plain',
    after => "GET /after HTTP/1.1\r\nHost: a\r\n\r\n");
detached('garbage behind it', 'plain', after => "\0\1\2" x 100);
detached('more of it than fits', 'plain', after => "\r\n\0garbage" x 50_000);
detached('other modules that have nothing to do', 'noaddition')
    if $addition;

attached('limit_rate', 'rate');
attached('limit_rate by a variable', 'ratevar');
attached('limit_rate by an argument', 'rateif?rate=10m');
attached('sub_filter', 'sub');
attached('ssi', 'ssi');
attached('add_trailer', 'trailer');
attached('rt_detach off', 'off');
attached('rt_detach off, TLS', 'off', tls => 1, port => 1);
attached('rt_detach off, HTTP/1.0', 'off', version => '1.0');
attached('rt_detach off, inherited', 'plain', port => 3);
detached('rt_detach on, of a location', 'on', port => 3);
detached('rt_detach on, of the location around it', 'nested', port => 3);
attached('addition', 'addition') if $addition;
attached('mirror', 'mirror') if $mirror;

subtest 'gzip: attached' => sub {
    my $out = dir() . '/gzip';
    my $pid = RT::spawn([qw(curl -sN --compressed -m 20 -H),
        'Accept: text/event-stream', 'http://127.0.0.1:' . $ngx->port
        . '/gzip/z'], out => $out);
    wait_ok { slurp($out) =~ /\nid: \S+\n\n\z/ } 5, 'a place';
    for my $text (1 .. 20, $big) {
        publish(z => $text);
        wait_for { slurp($out) =~ /data: \Q@{[$text =~ s{\n.*}{}sr]}\E\n/ } 5,
            'message';
    }
    wait_ok { index(slurp($out), $big_text) > 0 } 5, 'all comes';
    is(scalar lines(qr{^/gzip/z }), 0, 'its request goes on');
    RT::kill_group($pid);
    wait_ok { lines(qr{^/gzip/z sse 200 client }) == 1 } 5, 'to its end';
};

subtest 'HTTP/2: attached' => sub {
    my $out = dir() . '/h2';
    my $pid = RT::spawn([qw(curl -sN --http2-prior-knowledge -m 20 -H),
        'Accept: text/event-stream', 'http://127.0.0.1:' . $ngx->port(2)
        . '/plain/h2'], out => $out);
    wait_ok { slurp($out) =~ /\nid: \S+\n\n\z/ } 5, 'a place';
    for my $text (1 .. 20, $big) {
        publish(h2 => $text);
        wait_for { slurp($out) =~ /data: \Q@{[$text =~ s{\n.*}{}sr]}\E\n/ } 5,
            'message';
    }
    wait_ok { index(slurp($out), $big_text) > 0 } 5, 'all comes';
    is(scalar lines(qr{^/plain/h2 }), 0, 'its request goes on');
    RT::kill_group($pid);
    wait_ok { lines(qr{^/plain/h2 sse 200 client }) == 1 } 5, 'to its end';
};

subtest 'the second request of a connection' => sub {
    for my $loc (qw(plain off)) {
        my $c = RT::HTTP->new($ngx);
        my $first = $n++;
        for my $path ('/after', '/status') {
            $c->send(GET => $path, headers => [$path eq '/after'
                ? ('X-Long' => 'y' x 3000) : ()]);
            is($c->read->status, 200, "$loc: $path");
        }
        $c->send(GET => "/$loc/k$n", headers =>
            [Accept => 'text/event-stream', 'X-Long' => 'x' x 3000]);
        my $head = $c->read_head(Time::HiRes::time() + 5);
        is($head->{status}, 200, "$loc: then a stream");
        wait_ok { lines(qr{^/$loc/k$n sse 200 detached}) } 5, 'detached'
            if $loc eq 'plain';
        publish("k$n" => 'hello');
        wait_ok { eval { $c->_fill(Time::HiRes::time() + 0.05) };
            $c->{in} =~ /data: hello\n\n\r\n\z/ } 5, 'and its messages';
        $c->close;
    }
};

subtest 'two requests in one packet' => sub {
    for my $loc (qw(plain off)) {
        $n++;
        my $c = RT::HTTP->new($ngx);
        $c->write("GET /after HTTP/1.1\r\nHost: a\r\n\r\n"
            . "GET /$loc/p$n HTTP/1.1\r\nHost: a\r\n"
            . "Accept: text/event-stream\r\n\r\n"
            . "GET /after HTTP/1.1\r\nHost: a\r\n\r\n");
        is($c->read->body, "after all\n", "$loc: the first is answered");
        my $head = $c->read_head(Time::HiRes::time() + 5);
        is($head->{headers}{'content-type'}, 'text/event-stream',
            'the second is a stream');
        wait_ok { lines(qr{^/$loc/p$n sse 200 detached}) } 5, 'detached'
            if $loc eq 'plain';
        publish("p$n" => 'hello');
        wait_ok { eval { $c->_fill(Time::HiRes::time() + 0.05) };
            $c->{in} =~ /data: hello\n\n\r\n\z/ } 5, 'and its messages';
        unlike($c->{in}, qr/after all/, 'the third is not answered');
        $c->close;
    }
};

subtest 'limit_conn holds for as long as a stream lasts' => sub {
    my @w = map { RT::Wire->new($ngx, '/conn/l') } 1, 2;
    wait_for { $_->read(0.02); $_->body =~ /\nid: / } 5, 'a place' for @w;
    is($_->status, 200, 'admitted') for @w;
    is(get($ngx, '/conn/l')->status, 503, 'the third is not');
    publish(l => $big);
    ok($_->wait(qr/\Q$big_text\E\z/), 'all comes') for @w;
    $_->framed for @w;
    is(get($ngx, '/conn/l')->status, 503, 'still not');
    is(scalar lines(qr{^/conn/l sse 200}), 0, 'their requests go on');
    is(scalar $ngx->log(qr/keeps its request: a module waits.*conn\/l/), 2,
        'which the log says');
    $w[0]->close;
    wait_ok { get($ngx, '/conn/l')->status == 200 } 5, 'one that left';
    my $w = RT::Wire->new($ngx, '/conn/l');
    ok($w->wait(qr/data: 1 /), 'another comes in its place');
    is(get($ngx, '/conn/l')->status, 503, 'and then nobody');
    $_->close for $w, $w[1];
    wait_ok { 4 == grep { get($ngx, '/conn/l')->status == 200 } 1 .. 4 } 5,
        'all have left';
};

# a client that sends its body all the while

for my $loc (qw(plain off)) {
    subtest "a body that comes late: $loc" => sub {
        my $size = 30_000_000;
        my $uri = "/$loc/body$loc";
        my $w = RT::Wire->new($ngx, $uri,
            headers => ['Content-Length' => $size], after => 'x' x 10);
        ok($w->wait(qr/\nid: \S+\n\n/), 'a place');
        publish("body$loc" => 'one');
        ok($w->wait(qr/data: one\n\n/), 'a message');
        ok($w->write('x' x 10_000_000), 'some of the body');
        publish("body$loc" => 'two');
        ok($w->wait(qr/data: two\n\n/), 'a message');
        ok($w->write('x' x ($size - 10_000_010)), 'all of the body');
        is(scalar lines(qr{^$uri sse 200 detached}), $loc eq 'plain' ? 1 : 0,
            'the request does not wait for it');
        publish("body$loc" => 'three');
        ok($w->wait(qr/data: three\n\n\z/), 'a message');
        $w->framed;
        $w->close;
        wait_ok { lines(qr{^$uri sse 200 client}) } 5, 'it has ended'
            if $loc eq 'off';
    };
}

subtest 'a body that does not come' => sub {
    my @w = map { RT::Wire->new($ngx, '/plain/cut',
        headers => ['Content-Length' => 1000], after => 'x') } 1 .. 2;
    wait_ok { $_->read(0.01) for @w;
        2 == grep { $_->body =~ /\nid: \S+\n\n/ } @w } 5, 'places';
    $w[0]->close;
    $w[1]->reset;
    wait_ok { get($ngx, '/status')->body =~ /"sse":\{"open":0,/ } 5,
        'they have left';
};

subtest 'what addition adds comes at the end' => sub {
    plan(skip_all => 'no addition module') if !$addition;
    my $w = RT::Wire->new($ngx, '/addition/end');
    ok($w->wait(qr/\nid: \S+\n\n/), 'a place');
    publish(end => 'last');
    ok($w->wait(qr/data: last\n\n/), 'a message');
    publish(end => "$_$big") for 1 .. 20;
    ok($w->wait(sub { index($w->body, "data: 20$big_text" =~ s/20data: /20/r)
        > 0 }), 'many');
    my @told = $ngx->log(
        qr/keeps its request: ngx_http_addition_filter_module /);
    is(scalar @told, 2, 'why it stays is said once of each stream');
    $ngx->reload;
    like($w->whole, qr/\nretry: \d+\n\nafter all\n\z/, 'then it ends');
};

wait_ok { get($ngx, '/status')->body =~ /"sse":\{"open":0,/ } 5,
    'all have left';

done_testing;
