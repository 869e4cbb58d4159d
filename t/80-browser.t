# Real EventSource, real fetch and the demo page, in Debian's Chromium, over
# the demo's own configuration.  What is checked is in t/browser/run.mjs.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use RT::Browser;

RT::Browser::need(chromium => 1);

# the demo's configuration as it is, but for how long things take
sub demo_conf ($redis) {
    my %fill = (
        MODULE     => RT::Nginx::module(),
        PREFIX     => '%%DIR%%',
        PORT       => '%%PORT%%',
        REDIS_PORT => $redis->port,
        WWW        => '%%ROOT%%/conf/www',
    );
    my $conf = slurp(root() . '/conf/demo.conf');
    $conf =~ s/^load_module.*$//m if $fill{MODULE} eq '';
    $conf =~ s/\@([A-Z_]+)\@/$fill{$1} \/\/ die "\@$1\@ in demo.conf\n"/ge;
    $conf =~ s{error_log .*;}{error_log %%DIR%%/logs/error.log notice;};
    $conf =~ s/(http \{\n)/$1    rt_drain 1s;\n    rt_retry 400ms;\n/;
    my $user = $> == 0 ? "user root;\n" : '';
    return "daemon off;\n$user$conf";
}

my $redis = RT::Redis->new;
my $ngx = RT::Nginx->new(
    redis => $redis,
    conf  => demo_conf($redis),
    allow => [qr/exited on signal 9/],
);

RT::Browser::run('run.mjs', $ngx, $redis);

done_testing;
