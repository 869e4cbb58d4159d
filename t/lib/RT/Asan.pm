package RT::Asan;

# The nginx of "make asan": sanitizers, debug allocators, fault points, the
# module linked in.
#
#     my $nginx = RT::Asan::build;      # a test; its path, false if it failed
#     %ENV = (%ENV, RT::Asan::env($nginx));     # RT::Nginx starts it
#     RT::Asan::reports($dir)           # lines of reports anywhere under $dir
#     RT::Asan::faults($nginx)          # true: it has fault points
#
# RT_FAULT in an nginx' environment names a file with fault points in it, see
# t/lib/asan.c.

use v5.36;
use File::Find qw(find);
use Time::HiRes qw(time);

my $report = qr/(?:Address|Leak|UndefinedBehavior)Sanitizer|runtime error:/;

# the path of nginx, of make's last line
sub build {
    my $out = RT::dir() . '/make.out';
    my $start = time;
    my $pid = RT::spawn([qw(make --no-print-directory -C), RT::root(),
                         'asan'], out => $out);
    RT::poll_until(sub { !RT::running($pid) }, 1200);
    my $done = !RT::running($pid) && $? == 0;
    my ($path) = RT::slurp($out) =~ m{^(/\S+/nginx)\n\z}m;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    RT::ok($done && $path && -x $path, 'make asan')
        or RT::diag(RT::slurp($out));
    RT::note(sprintf 'built in %d s', time - $start);
    return $done && $path;
}

sub env ($nginx) {
    return (RT_NGINX => $nginx, RT_MODULE => '', RT_ASAN => 1);
}

sub faults ($nginx) { return RT::slurp($nginx) =~ /\0RT_FAULT\0/ }

sub reports ($dir) {
    my @lines;
    find({ no_chdir => 1, wanted => sub {
        return if !-f $_ || -p $_;
        my $all = m{/san\.\d+$};
        push @lines, map { "$File::Find::name: $_" }
            grep { $all || /$report/ } split /\n/, RT::slurp($_);
    } }, $dir) if -d $dir;
    return @lines;
}

1;
