# Who may read, and what nginx's own directives do to polls and streams.

use v5.36;
use Digest::MD5 qw(md5_base64);
use FindBin;
use lib "$FindBin::Bin/lib";
use MIME::Base64 qw(encode_base64);
use RT;

# every location twice: the hub in memory, and the one that Redis feeds

sub locations ($hub) {
    return <<"END";
    location ~ ^/$hub/open/(?<channel>.+)\$ { rt_subscribe $hub \$channel; }
    location ~ ^/$hub/auth/(?<channel>.+)\$ {
        auth_request /auth;
        auth_request_set \$user \$upstream_http_x_user;
        add_header X-User \$user always;
        rt_subscribe $hub \$user.\$channel;
    }
    location ~ ^/$hub/auth-page/(?<channel>.+)\$ {
        auth_request /auth;
        error_page 401 /page401; error_page 403 = \@denied;
        rt_subscribe $hub \$channel;
    }
    location ~ ^/$hub/deny/(?<channel>.+)\$ {
        deny all; rt_subscribe $hub \$channel;
    }
    location ~ ^/$hub/allow/(?<channel>.+)\$ {
        allow 127.0.0.1; deny all; rt_subscribe $hub \$channel;
    }
    location ~ ^/$hub/basic/(?<channel>.+)\$ {
        auth_basic "rt"; auth_basic_user_file %%DIR%%/users;
        rt_subscribe $hub \$channel;
    }
    location ~ ^/$hub/any/(?<channel>.+)\$ {
        satisfy any; deny all;
        auth_basic "rt"; auth_basic_user_file %%DIR%%/users;
        rt_subscribe $hub \$channel;
    }
    location ~ ^/$hub/secure/(?<channel>.+)\$ {
        secure_link \$arg_md5,\$arg_expires;
        secure_link_md5 "\$secure_link_expires\$uri secret";
        if (\$secure_link = "") { return 403; }
        if (\$secure_link = "0") { return 410; }
        rt_subscribe $hub \$channel;
    }
    location ~ ^/$hub/conn/(?<channel>.+)\$ {
        limit_conn conn-$hub 2; limit_conn_status 429;
        rt_subscribe $hub \$channel;
    }
    location ~ ^/$hub/short/(?<channel>.+)\$ {
        limit_conn conn-$hub 2; limit_conn_status 429;
        rt_lifetime 100ms;
        rt_subscribe $hub \$channel;
    }
    location ~ ^/$hub/req/(?<channel>.+)\$ {
        limit_req zone=req-$hub burst=1 nodelay;
        error_page 503 /page503;
        rt_subscribe $hub \$channel;
    }
    location ~ ^/$hub/headers/(?<channel>.+)\$ {
        add_header X-Plain plain;
        add_header X-Always always always;
        expires 1h;
        rt_subscribe $hub \$channel;
    }
    location ~ ^/$hub/if/(?<channel>.+)\$ {
        if (\$arg_x) { add_header X-If yes; }
        rt_subscribe $hub \$channel;
    }
    location ~ ^/$hub/try/(?<channel>.+)\$ {
        try_files \$uri /$hub/open/\$channel;
    }
    location ~ ^/$hub/named/ { set \$named a; try_files /none \@$hub; }
    location \@$hub { rt_subscribe $hub \$named; }
    location ~ ^/$hub/rewrite/ {
        rewrite ^/$hub/rewrite/(.*)\$ /$hub/open/\$1 last;
    }
    location = /$hub/instead { return 404; error_page 404 /$hub/open/a; }
    location = /$hub/instead200 {
        return 404; error_page 404 =200 /$hub/open/a;
    }
    location = /$hub/none404 { return 404; error_page 404 /$hub/open/none; }
    location = /$hub/none200 {
        return 404; error_page 404 =200 /$hub/open/none;
    }
    location = /$hub/back403 { deny all; error_page 403 /$hub/open/a; }
END
}

my $redis = RT::Redis->new;
my $ngx = RT::Nginx->new(redis => $redis, workers => 2, http => <<'END',
    rt_hub mem { zone 8m; }
    rt_hub app { zone 8m; redis %%REDIS%%; }
    limit_conn_zone $server_port zone=conn-mem:1m;
    limit_conn_zone $server_port zone=conn-app:1m;
    limit_req_zone $server_port$arg_k zone=req-mem:1m rate=1r/m;
    limit_req_zone $server_port$arg_k zone=req-app:1m rate=1r/m;
    log_format rt '$request_method $uri $status $rt_channel $rt_transport '
                  '$rt_result $rt_version $rt_messages $rt_close';
    access_log %%DIR%%/logs/rt.log rt;
END
    server => locations('mem') . locations('app') . <<'END');
    location = /auth { internal; proxy_pass http://127.0.0.1:%%PORT%%/who; }
    location = /who {
        add_header X-User $http_x_who always;
        if ($http_x_who = "") { return 401; }
        if ($http_x_who = "bad") { return 403; }
        return 204;
    }
    location = /page401 { internal; return 200 "who are you\n"; }
    location = /page503 { internal; return 200 "later\n"; }
    location @denied { return 200 "no\n"; }
    location = /publish { rt_publish mem $arg_channel; }
END
RT::spew($ngx->dir . '/users', "joe:{PLAIN}secret\n");

my @joe = (Authorization => 'Basic ' . encode_base64('joe:secret', ''));
my @bad = ('X-Who' => 'bad');
my $tag = qr/^"[A-Za-z0-9._,-]+"$/;
my $hub;

sub publish ($channel, $data) {
    return post($ngx, "/publish?channel=$channel", $data) if $hub eq 'mem';
    $redis->publish($channel, $data);
}

sub known ($channel, $data) {
    get($ngx, "/$hub/open/$channel");
    $redis->wait_sub($channel) if $hub eq 'app';
    publish($channel, $data);
    wait_for { my $r = get($ngx, "/$hub/open/$channel");
               $r->status == 200 && $r->body eq $data } 5, "$channel is known";
}

sub stream ($path, %opt) { return RT::SSE->new($ngx, "/$hub$path", %opt) }

# nothing of a channel shows in a refusal
sub refused ($path, $status, $name, %opt) {
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $etag = get($ngx, "/$hub/open/a")->header('ETag');
    for my $h ([], [Accept => 'text/event-stream'], ['If-None-Match' => $etag],
        ['If-None-Match' => '*'])
    {
        my $r = get($ngx, "/$hub$path",
            headers => [@$h, @{$opt{headers} // []}]);
        is($r->status, $status, "$hub: $name: $status @$h");
        my @shown = grep { defined $r->header($_) }
            qw(ETag RT-Advice RT-Poll-Interval X-Accel-Buffering);
        is("@shown", '', 'no header of ours');
        unlike($r->body . join('', %{$r->headers}),
            qr/retry:|data:|\Q@{[$etag =~ s{"}{}gr]}\E|hello/, 'nor data');
    }
}

sub admitted ($path, $data, $name, %opt) {
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $r = get($ngx, "/$hub$path", %opt);
    is($r->status, 200, "$hub: $name: a poll");
    is($r->body, $data, 'of the message');
    like($r->header('ETag') // '', $tag, 'with its ETag');
    my $sse = stream($path, %opt);
    is($sse->status, 200, 'a stream');
    $sse->expect($data);
    $sse->close;
    return ($r, $sse);
}

my $log = $ngx->dir . '/logs/rt.log';

sub logged ($like, $name) {
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    wait_ok { grep { $_ =~ $like } split /\n/, slurp($log) } 5, $name;
}

for (qw(mem app)) {
    $hub = $_;
    known(a => 'hello');

    # auth_request

    refused('/auth/a', 401, 'auth_request');
    refused('/auth/a', 403, 'auth_request', headers => [@bad]);
    refused('/auth/a?last_event_id=x', 403, 'with a cursor',
        headers => [@bad]);
    known('me.a' => 'mine');
    my ($r, $sse) = admitted('/auth/a', 'mine', 'auth_request',
        headers => ['X-Who' => 'me']);
    is($r->header('X-User'), 'me', 'auth_request_set');
    is($sse->header('X-User'), 'me', 'of a stream');
    is(get($ngx, "/$hub/auth/a", headers => [@bad,
        'If-None-Match' => $r->header('ETag')])->status, 403,
        'a current ETag opens nothing');

    $r = get($ngx, "/$hub/auth-page/a");
    is($r->status . $r->body, "401who are you\n", "$hub: error_page 401");
    is($r->header('ETag'), undef, 'without an ETag');
    $r = get($ngx, "/$hub/auth-page/a",
        headers => [@bad, Accept => 'text/event-stream']);
    is($r->status . $r->body, "200no\n", "$hub: error_page 403");
    is($r->header('ETag'), undef, 'without an ETag');

    # allow, deny, auth_basic, satisfy, secure_link

    refused('/deny/a', 403, 'deny');
    admitted('/allow/a', 'hello', 'allow');
    refused('/basic/a', 401, 'auth_basic');
    admitted('/basic/a', 'hello', 'auth_basic', headers => [@joe]);
    refused('/any/a', 401, 'satisfy any');
    admitted('/any/a', 'hello', 'satisfy any', headers => [@joe]);
    is(head($ngx, "/$hub/any/a")->header('ETag'), undef, 'HEAD shows none');

    my $link = sub ($at) {
        my $md5 = md5_base64("$at/$hub/secure/a secret") =~ tr{+/}{-_}r;
        return "/secure/a?md5=$md5&expires=$at";
    };
    refused('/secure/a', 403, 'secure_link');
    refused($link->(time - 10), 410, 'secure_link, expired');
    admitted($link->(time + 1000), 'hello', 'secure_link');

    # limit_conn: a stream is counted for as long as it lasts

    my $full = sub { get($ngx, "/$hub/conn/a")->status == 429 };
    my $free = sub ($name) {
        local $Test::Builder::Level = $Test::Builder::Level + 1;
        wait_ok { !$full->() } 5, "$hub: $name";
    };
    my @two = map { stream('/conn/a') } 1, 2;
    is("@{[map { $_->status } @two]}", '200 200', "$hub: limit_conn 2");
    refused('/conn/a', 429, 'limit_conn');
    $two[0]->expect('hello');
    ok($full->(), 'still, with events on the way');
    $two[0]->close;
    $free->('freed by a close');
    $two[0] = stream('/conn/a');
    is($two[0]->status, 200, 'for another stream');
    ok($full->(), 'then it is full again');
    $two[1]->reset;
    $free->('freed by a reset');
    $two[1] = stream('/short/a');
    is($two[1]->status, 200, 'for one that is short');
    ok($two[1]->ended && $two[1]->clean, 'it ends cleanly');
    $free->('freed by the lifetime');
    $two[1]->close;
    $two[0]->close;
    wait_ok {
        my @c = map { stream('/conn/a') } 1, 2;
        my $both = 2 == grep { $_->status == 200 } @c;
        $_->close for @c;
        $both;
    } 5, 'all are free again';

    # limit_req, with error_page 503

    is(get($ngx, "/$hub/req/a?k=p$_")->status, 200, 'limit_req') for 1, 1;
    $r = get($ngx, "/$hub/req/a?k=p1");
    is($r->status . $r->body, "503later\n", "$hub: limit_req, error_page 503");
    is($r->header('ETag'), undef, 'without an ETag');
    my @req = map { stream('/req/a?k=s') } 1, 2;
    is("@{[map { $_->status } @req]}", '200 200', 'streams');
    $r = get($ngx, "/$hub/req/a?k=s",
        headers => [Accept => 'text/event-stream']);
    is($r->status . $r->body, "503later\n", 'then no more');
    $req[0]->expect('hello');
    $_->close for @req;

    # add_header, expires

    $r = get($ngx, "/$hub/headers/a");
    my $etag = $r->header('ETag');
    for my $case ([200], [304, 'If-None-Match' => $etag],
        [204, undef, "none$hub"], [200, Accept => 'text/event-stream'],
        [400, undef, ','])
    {
        my ($status, $name, $value) = @$case;
        my $channel = defined $name ? 'a' : $value // 'a';
        my @h = defined $name ? (headers => [$name, $value]) : ();
        my $c = RT::HTTP->new($ngx);
        $c->send(GET => "/$hub/headers/$channel", @h);
        my $head = $c->read_head(Time::HiRes::time() + RT::scale(5));
        $c->close;
        my %h = %{$head->{headers}};
        is($head->{status}, $status, "$hub: add_header, $status @h");
        is($h{'x-always'}, 'always', 'always');
        is($h{'x-plain'}, $status == 400 ? undef : 'plain', 'plain');
        next if $status == 400;
        like($h{'cache-control'}, qr/\bno-cache\b/,
            'no-cache survives expires');
        ok(defined $h{expires}, 'expires');
    }

    # if, try_files, named, rewrite

    is(get($ngx, "/$hub/if/a?x=1")->header('X-If'), 'yes', "$hub: if");
    admitted('/if/a', 'hello', 'if not');
    admitted('/if/a?x=1', 'hello', 'if');
    admitted('/try/a', 'hello', 'try_files');
    admitted('/named/', 'hello', 'a named location');
    admitted('/rewrite/a', 'hello', 'rewrite');

    # error_page to a channel: whole answers under the status it keeps

    for my $case (['instead', 404, 'hello'], ['none404', 404, ''],
        ['back403', 403, 'hello'])
    {
        my ($path, $status, $body) = @$case;
        my $c = RT::HTTP->new($ngx);
        for my $h ([], ['If-None-Match' => $etag], ['If-None-Match' => '*'],
            [Accept => 'text/event-stream'])
        {
            $c->send(GET => "/$hub/$path", headers => [@$h]);
            $r = $c->read;
            is($r->status, $status, "$hub: $path @$h");
            is($r->body, $body, 'the body ends');
            is($r->header('Content-Length'), length $body, 'its length');
            is($r->header('ETag'), undef, 'it is no version');
        }
        $c->close;
    }
    my $c = RT::HTTP->new($ngx);
    for my $case (['instead200', 200], ['none200', 204],
        ['instead200', 304, 'If-None-Match' => $etag],
        ['instead200', 304, 'If-None-Match' => '*'], ['open/a', 200])
    {
        my ($path, $status, @h) = @$case;
        $c->send(GET => "/$hub/$path", headers => [@h]);
        $r = $c->read;
        is($r->status, $status, "$hub: $path @h");
        is($r->body, $status == 200 ? 'hello' : '', 'its body');
        like($r->header('ETag') // '', $tag, 'its ETag');
    }
    $c->close;
    $sse = stream('/instead200');
    is($sse->status, 200, "$hub: error_page =200 may be a stream");
    $sse->expect('hello');
    $sse->close;

    # the access log

    my $v = qr/[A-Za-z0-9._,-]{8,64}/;
    logged(qr{^GET /$hub/auth/a 200 me\.a poll miss $v 1 -$}, 'a poll');
    logged(qr{^GET /$hub/headers/a 304 a poll hit $v 0 -$}, 'a hit');
    logged(qr{^GET /$hub/headers/none$hub 204 none$hub poll miss $v 0 -$},
        'a poll of nothing');
    logged(qr{^GET /$hub/auth/a 200 me\.a sse \S+ \S+ \d detached$},
        'a stream, detached');
    logged(qr{^GET /$hub/conn/a 200 a sse \S+ \S+ \d client$},
        'one that was reset');
    logged(qr{^GET /$hub/short/a 200 a sse \S+ \S+ 1 lifetime$},
        'one that lived long enough');
    logged(qr{^GET /$hub/deny/a 403 - - - - - -$}, 'one that was refused');
}

done_testing;
