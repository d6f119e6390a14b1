// A picture from the camera, as a file without loss.

const part = (name) => document.getElementById(name);

export function setUpCamera(onPicture) {
  const [dialog, video, error] = ['camera-dialog', 'camera-video', 'camera-error'].map(part);
  let stream;

  const stop = () => {
    stream?.getTracks().forEach((track) => track.stop());
    stream = undefined;
    video.srcObject = null;
  };

  part('camera').onclick = async () => {
    error.hidden = true;
    part('camera-take').disabled = true;
    dialog.showModal();
    try {
      if (!navigator.mediaDevices) throw new DOMException('', 'SecurityError');
      const found = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'environment' } });
      if (!dialog.open) return found.getTracks().forEach((track) => track.stop());
      stream = found;
      video.srcObject = stream;
      await video.play();
      part('camera-take').disabled = false;
      part('camera-take').focus();
    } catch (problem) {
      error.textContent = reason(problem.name);
      error.hidden = false;
    }
  };

  part('camera-take').onclick = () => {
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext('2d').drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      dialog.close();
      onPicture(new File([blob], 'camera.png', { type: 'image/png' }));
    }, 'image/png');
  };
  part('camera-close').onclick = () => dialog.close();
  dialog.onclose = stop; // by Escape, too
}

function reason(name) {
  if (name === 'NotAllowedError') return 'The camera may not be used; allow it for this page, or choose a file.';
  if (name === 'NotFoundError') return 'There is no camera; choose a file.';
  if (name === 'SecurityError') return 'Browsers give the camera to https and to 127.0.0.1 only; choose a file.';
  return 'The camera could not be started; is another program using it?';
}
