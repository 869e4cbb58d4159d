# What users copy is right: every snippet of conf/ in the context that it
# names, conf/demo.conf, and every configuration of README.md.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;

my $redis = RT::Redis->new;
my $conf = root() . '/conf';
my $hub = 'rt_hub app { redis %%REDIS%%; }';

sub accepted ($name, %args) {
    my ($ok, $output) = nginx_t(redis => $redis, %args);
    ok($ok, $name) or diag($output);
    unlike($output, qr/\[warn\]/, "$name: without a warning");
}

# contexts by the comment that each snippet begins with
# the cache of cache.conf is made here
my $cache = dir() . '/cache.conf';
RT::spew($cache, slurp("$conf/cache.conf") =~ s{/var/cache/nginx}{dir()}er);
for my $file (sort glob "$conf/*.conf") {
    my $name = $file =~ s{.*/}{}r;
    next if $name eq 'demo.conf';
    $file = $cache if $name eq 'cache.conf';
    my $needs = $name eq 'gate-cache.conf' ? "include $cache;" : '';
    my ($context) = slurp($file) =~ /^# .*Context:\s+(http|server)\./ms;
    if (!ok($context, "conf/$name names its context")) {
        next;
    }
    # what names port 6379 is read only, nothing connects
    my %args = $context eq 'server' ? (http => $hub . $needs, server => "include $file;")
        : slurp($file) =~ /^rt_hub/m
            ? (http => "include $file;", server => 'location / {
                  rt_subscribe app a; }')
        : $name eq 'cache.conf' ? (http => "$hub include $cache;")
            : (http => "$hub\ninclude $file;", server => 'location / {
                  rt_subscribe app a; access_log %%DIR%%/logs/rt.log rt; }');
    accepted("conf/$name", %args);
}

# all that belongs into one server, together
accepted('conf/: all snippets together',
    http => "include $conf/hub-redis.conf; include $conf/log-format.conf; "
        . "include $cache;",
    server => join '', map { "include $conf/$_.conf;\n" }
        qw(poll sse poll-and-sse gate gate-cache cdn publish status));

# README.md: blocks of nginx, whole or for http or for a server
my $readme = slurp(root() . '/README.md');
my $n = 0;
while ($readme =~ /^```nginx\n(.*?)^```$/gms) {
    my $text = $1;
    my $name = 'README.md, nginx block ' . ++$n;
    my $help = "limit_conn_zone \$remote_addr zone=per_user:1m;\n";
    if ($text =~ /^load_module/) {
        $text =~ s/^load_module.*\n//;
        $text =~ s/listen 8080/listen 127.0.0.1:%%PORT%%/;
        my $module = RT::Nginx::module();
        my $load = $module ne '' ? "load_module $module;\n" : '';
        accepted($name, conf => $load . "pid %%DIR%%/nginx.pid;\n" . $text);
    } elsif ($text =~ /^(?:rt_hub|log_format)/) {
        accepted($name, http => $text);
    } else {
        accepted($name, http => "$hub\n$help",
            server => "location = /auth { return 204; }\n$text");
    }
}
cmp_ok($n, '>=', 8, 'README.md has its configurations');

# every directive and variable that README.md and conf/ name exists, and the
# other way round
my $source = join '', map { slurp($_) }
    glob root() . '/ngx_rt_module/*.c';
my %exists = map { $_ => 1 }
    $source =~ /\{ ngx_string\("(rt_\w+)"\),\s+NGX_(?:HTTP|CONF)/g;
my %variable = map { $_ => 1 }
    $source =~ /\{ ngx_string\("(rt_\w+)"\), NULL/g;
my ($reference) = $readme =~ /^## Directives\n(.*?)^## On the wire/ms;
my %told = map { $_ => 1 } $reference =~ /`(rt_\w+)/g, $reference =~ /^### (rt_\w+)/gm;
is_deeply([sort keys %told], [sort keys %exists],
    'README.md: the directives are those that exist');
my ($variables) = $readme =~ /^## Variables\n(.*?)^## /ms;
is_deeply([sort $variables =~ /^\| `\$(rt_\w+)`/gm], [sort keys %variable],
    'README.md: so are the variables');

# a location's snippet works as it stands
my $ngx = RT::Nginx->new(
    redis => $redis,
    http  => "include $conf/embedded.conf; include $conf/log-format.conf;
              include $cache;
              access_log %%DIR%%/logs/rt.log rt;",
    server => join '', map { "include $conf/$_.conf;\n" }
        qw(poll sse poll-and-sse gate gate-cache cdn publish status));
is(get($ngx, '/poll/orders:42')->status, 204, 'poll.conf answers');
my $sse = RT::SSE->new($ngx, '/events/orders:42');
is(post($ngx, '/publish?channel=orders:42', 'x')->status, 202,
    'publish.conf answers');
is($sse->event->{data}, 'x', 'sse.conf answers');
is(get($ngx, '/rt/orders:42')->body, 'x', 'poll-and-sse.conf answers');
like(get($ngx, '/rt-many/orders:42,b')->body, qr/"channel":\s*"orders:42"/,
    'poll-and-sse.conf answers for many');
like(get($ngx, '/rt-status')->body, qr/"state":\s*"embedded"/,
    'status.conf answers');
wait_ok {
    slurp($ngx->dir . '/logs/rt.log') =~
        m{"GET /rt/orders:42 HTTP/1\.1" 200 1 \S+ poll orders:42 miss }
} 5, 'log-format.conf: the line of a poll';

done_testing;
